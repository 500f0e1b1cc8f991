//! Tokens of an OpenID Connect issuer that the test runs, over HTTPS.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use keelson_apiserver::{ApiServer, Authentication, Config, Oidc};
use keelson_store::LocalStore;
use parking_lot::Mutex;
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::https::{HttpsServer, json as answer, status};
use super::wire::{bearer, whoami};
use crate::support::TestServer;
use std::net::SocketAddr;

/// The issuer: its server and the key it signs with now.
struct Issuer {
    server: HttpsServer,
    state: Arc<Mutex<State>>,
    /// How often the keys were got.
    fetched: Arc<AtomicUsize>,
}

struct State {
    url: String,
    key: EncodingKey,
    id: String,
    /// What the server shows.
    keys: Vec<Value>,
    /// The server cannot be found, or does not give its keys.
    hidden: bool,
    shut: bool,
}

fn make_key(id: &str) -> (EncodingKey, Value) {
    let key = EncodingKey::from_ec_pem(KeyPair::generate().unwrap().serialize_pem().as_bytes()).unwrap();
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    jwk.common.key_id = Some(id.to_owned());
    (key, serde_json::to_value(jwk).unwrap())
}

impl Issuer {
    async fn start() -> Self {
        let (key, jwk) = make_key("k1");
        let state = State { url: String::new(), key, id: "k1".into(), keys: vec![jwk], hidden: false, shut: false };
        let state = Arc::new(Mutex::new(state));
        let fetched = Arc::new(AtomicUsize::new(0));
        let (shared, counted) = (state.clone(), fetched.clone());
        let server = HttpsServer::start(move |request| {
            let state = shared.lock();
            let reply = match request.uri().path() {
                "/.well-known/openid-configuration" if state.hidden => status(503),
                "/keys" if state.shut => {
                    counted.fetch_add(1, Ordering::SeqCst);
                    status(503)
                }
                "/.well-known/openid-configuration" => {
                    answer(&json!({"issuer": state.url, "jwks_uri": format!("{}/keys", state.url)}))
                }
                "/keys" => {
                    counted.fetch_add(1, Ordering::SeqCst);
                    // Such a key must verify nothing: everybody knows it.
                    let shared = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256"});
                    let keys: Vec<Value> = state.keys.iter().cloned().chain([shared]).collect();
                    answer(&json!({"keys": keys}))
                }
                _ => status(404),
            };
            drop(state);
            async move { reply }
        })
        .await;
        state.lock().url = server.url("");
        Self { server, state, fetched }
    }

    /// A new key signs from now on; the old one is shown no more.
    fn rotate(&self) {
        let (key, jwk) = make_key("k2");
        let mut state = self.state.lock();
        (state.key, state.id, state.keys) = (key, "k2".into(), vec![jwk]);
    }

    fn claims(&self) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({
            "iss": self.state.lock().url, "aud": "keelson", "exp": now + 600, "sub": "jane", "groups": ["dev", "ops"],
            "tenant": "t1", "email": "jane@example.com", "hd": "example.com",
        })
    }

    fn sign(&self, claims: &Value) -> String {
        let state = self.state.lock();
        let header = Header { kid: Some(state.id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &state.key).unwrap()
    }

    fn with(&self, key: &str, value: Value) -> String {
        let mut claims = self.claims();
        claims[key] = value;
        self.sign(&claims)
    }

    /// Writes a configuration with these mappings and rules.
    fn configure(&self, file: &Path, rest: &str) {
        let indented: String = self.server.pki.ca_pem.lines().map(|line| format!("        {line}\n")).collect();
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: {}\n    \
             audiences: [keelson, other]\n    audienceMatchPolicy: MatchAny\n    certificateAuthority: |\n{indented}{rest}",
            self.state.lock().url
        );
        let next = file.with_extension("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, file).unwrap();
    }

    async fn api(&self, rest: &str) -> (TestServer, SocketAddr, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("authentication.yaml");
        self.configure(&file, rest);
        let test = TestServer::start_with(|config| config.authentication.config_file = Some(file)).await;
        let address = test.listen();
        (test, address, dir)
    }
}

/// Asks until the issuer has been found and the token is good.
async fn eventually(test: &TestServer, address: SocketAddr, token: &str) -> Value {
    for _ in 0..500 {
        if let Ok(user) = bearer(test, address, token).await {
            return user;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the token was never good");
}

const BY_CLAIM: &str = "  claimMappings:
    username: {claim: sub, prefix: \"oidc:\"}
    groups: {claim: groups, prefix: \"oidc:\"}
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
";

#[tokio::test]
async fn tokens_of_an_issuer_are_good_and_its_keys_may_change() {
    let issuer = Issuer::start().await;
    let (test, address, _dir) = issuer.api(BY_CLAIM).await;
    let user = eventually(&test, address, &issuer.sign(&issuer.claims())).await;
    let expected = json!({"username": "oidc:jane", "groups": ["oidc:dev", "oidc:ops", "system:authenticated"]});
    assert_eq!(user, expected);
    bearer(&test, address, &issuer.with("aud", json!(["x", "other"]))).await.expect("one of several audiences");
    bearer(&test, address, &issuer.with("groups", json!("solo"))).await.expect("a single group");
    let fetched = issuer.fetched.load(Ordering::SeqCst);
    assert_eq!(fetched, 1, "keys are kept");

    let old = issuer.with("jti", json!("old"));
    issuer.rotate();
    bearer(&test, address, &issuer.sign(&issuer.claims())).await.expect("a new key is asked for");
    assert_eq!(bearer(&test, address, &old).await, Err(401), "the old key is not shown any more");

    // Forged tokens do not make the issuer work without end.
    let (stranger, _) = make_key("unknown");
    let header = Header { kid: Some("unknown".into()), ..Header::new(Algorithm::ES256) };
    for i in 0..30 {
        let mut claims = issuer.claims();
        claims["jti"] = i.into();
        let forged = jsonwebtoken::encode(&header, &claims, &stranger).unwrap();
        assert_eq!(bearer(&test, address, &forged).await, Err(401));
    }
    let fetched = issuer.fetched.load(Ordering::SeqCst);
    assert!(fetched < 20, "the keys were got {fetched} times");
    let review = json!({"spec": {"token": issuer.sign(&issuer.claims())}});
    let status = test.admin().ok("POST /apis/authentication.k8s.io/v1/tokenreviews", review).await["status"].clone();
    assert_eq!((&status["authenticated"], &status["user"]["username"]), (&json!(true), &json!("oidc:jane")));
}

#[tokio::test]
async fn a_bad_token_of_an_issuer_is_unauthorized() {
    let issuer = Issuer::start().await;
    let (test, address, _dir) = issuer.api(BY_CLAIM).await;
    let good = issuer.sign(&issuer.claims());
    eventually(&test, address, &good).await;
    let fetched = issuer.fetched.load(Ordering::SeqCst);
    let now = jiff::Timestamp::now().as_second();
    let mut without = issuer.claims();
    without.as_object_mut().unwrap().remove("sub");
    for (what, token) in [
        ("expired", issuer.with("exp", json!(now - 1))),
        ("without an end", issuer.with("exp", json!(null))),
        ("not yet good", issuer.with("nbf", json!(now + 400))),
        ("for another audience", issuer.with("aud", json!("elsewhere"))),
        ("of another issuer", issuer.with("iss", json!("https://evil.example.com"))),
        ("without the claim", issuer.sign(&without)),
        ("a name that is no text", issuer.with("sub", json!(7))),
        ("an empty name", issuer.with("sub", json!(""))),
        ("groups of another type", issuer.with("groups", json!([1]))),
        ("a claim that a rule wants otherwise", issuer.with("hd", json!("evil.example.com"))),
        ("a shared secret", {
            let header = Header { kid: Some("shared".into()), ..Header::new(Algorithm::HS256) };
            jsonwebtoken::encode(&header, &issuer.claims(), &EncodingKey::from_secret(b"secret")).unwrap()
        }),
    ] {
        assert_eq!(bearer(&test, address, &token).await, Err(401), "{what}");
    }
    assert_eq!(issuer.fetched.load(Ordering::SeqCst), fetched, "none of them made the issuer work");
    bearer(&test, address, &good).await.unwrap();
}

#[tokio::test]
async fn expressions_make_users_of_claims() {
    let issuer = Issuer::start().await;
    let rest = r#"  claimMappings:
    username: {expression: "claims.sub + '@' + claims.tenant"}
    groups: {expression: "claims.groups.map(g, 'g:' + g)"}
    uid: {expression: "claims.?id.orValue('none')"}
    extra:
    - {key: example.com/tenant, valueExpression: claims.tenant}
    - {key: example.com/none, valueExpression: "''"}
  claimValidationRules:
  - {expression: "claims.hd == 'example.com'", message: the domain must be example.com}
  userValidationRules:
  - {expression: "!user.username.startsWith('system:')", message: reserved}
"#;
    let (test, address, dir) = issuer.api(rest).await;
    let user = eventually(&test, address, &issuer.sign(&issuer.claims())).await;
    let expected = json!({
        "username": "jane@t1", "uid": "none", "groups": ["g:dev", "g:ops", "system:authenticated"],
        "extra": {"example.com/tenant": ["t1"]},
    });
    assert_eq!(user, expected);
    let review = async |token: String| {
        let body = json!({"spec": {"token": token}});
        test.admin().ok("POST /apis/authentication.k8s.io/v1/tokenreviews", body).await["status"]["error"].clone()
    };
    assert_eq!(
        review(issuer.with("hd", json!("x"))).await,
        "[invalid bearer token, oidc: error evaluating claim validation expression: validation expression 'claims.hd == \
         'example.com'' failed: the domain must be example.com]"
    );
    assert_eq!(
        review(issuer.with("sub", json!("system:admin"))).await,
        "[invalid bearer token, oidc: error evaluating user info validation rule: validation expression \
         '!user.username.startsWith('system:')' failed: reserved]"
    );
    let odd = review(issuer.with("groups", json!(7))).await;
    assert!(
        odd.as_str().unwrap().starts_with("[invalid bearer token, oidc: error evaluating group claim expression: ")
    );

    // A new configuration is taken up; one that is wrong is not.
    let file = dir.path().join("authentication.yaml");
    std::fs::write(&file, "kind: Nonsense").unwrap();
    bearer(&test, address, &issuer.with("jti", json!("a"))).await.unwrap();
    issuer.configure(&file, BY_CLAIM);
    let mut name = Value::Null;
    for i in 0..500 {
        // A new one each time, for users are remembered by their tokens.
        if let Ok(user) = bearer(&test, address, &issuer.with("jti", json!(i))).await {
            name = user["username"].clone();
        }
        if name == "oidc:jane" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(name, "oidc:jane");
}

#[tokio::test]
async fn an_issuer_that_is_not_there_harms_nobody_else() {
    let issuer = Issuer::start().await;
    let token = issuer.sign(&issuer.claims());
    let (test, address, _dir) = issuer.api(BY_CLAIM).await;
    eventually(&test, address, &token).await;
    // Another server of ours begins while the issuer says that it is somebody else.
    let claims = issuer.claims();
    let url = std::mem::replace(&mut issuer.state.lock().url, "https://somebody.example.com".into());
    let (other, elsewhere, dir) = issuer.api(BY_CLAIM).await;
    drop(dir);
    let mut honest = claims;
    honest["iss"] = url.into();
    assert_eq!(bearer(&other, elsewhere, &issuer.sign(&honest)).await, Err(401));
    whoami(&other, elsewhere, Some(other.pki.issue("bob", &[])), &[]).await.unwrap();
}

#[tokio::test]
async fn new_issuers_are_asked_once_they_have_been_found() {
    let (old, new) = (Issuer::start().await, Issuer::start().await);
    let (test, address, dir) = old.api(BY_CLAIM).await;
    let user = eventually(&test, address, &old.sign(&old.claims())).await;
    assert_eq!(user["username"], "oidc:jane");
    new.state.lock().hidden = true;
    let file = dir.path().join("authentication.yaml");
    new.configure(&file, BY_CLAIM);
    for _ in 0..500 {
        if new.server.count() > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(new.server.count() > 0, "it is looked for");
    bearer(&test, address, &old.with("sub", json!("joe"))).await.unwrap();
    new.state.lock().hidden = false;
    // Another configuration ends the search and begins its own.
    new.configure(&file, &BY_CLAIM.replace("oidc:", "new:"));
    let user = eventually(&test, address, &new.sign(&new.claims())).await;
    assert_eq!(user["username"], "new:jane");
    assert_eq!(bearer(&test, address, &old.with("sub", json!("jim"))).await, Err(401));
}

#[tokio::test]
async fn keys_that_could_not_be_got_are_not_asked_for_by_everybody() {
    let issuer = Issuer::start().await;
    let (test, address, _dir) = issuer.api(BY_CLAIM).await;
    eventually(&test, address, &issuer.sign(&issuer.claims())).await;
    issuer.rotate();
    issuer.state.lock().shut = true;
    let before = issuer.fetched.load(Ordering::SeqCst);
    for sub in ["a", "b", "c"] {
        assert_eq!(bearer(&test, address, &issuer.with("sub", json!(sub))).await, Err(401));
    }
    assert_eq!(issuer.fetched.load(Ordering::SeqCst) - before, 1);
}

/// `--oidc-*`: one issuer without a file.
#[tokio::test]
async fn flags_describe_an_issuer() {
    let issuer = Issuer::start().await;
    let url = issuer.state.lock().url.clone();
    let base = Oidc { ca: Some(issuer.server.pki.ca_pem.clone().into()), ..Oidc::new(url.clone(), "keelson".into()) };
    let signed = Oidc { signing_algorithms: vec!["RS256".into(), "ES256".into()], ..base.clone() };
    let start = async |oidc: Oidc| {
        let test = TestServer::start_with(|config| config.authentication.oidc = Some(oidc)).await;
        let address = test.listen();
        (test, address)
    };
    let token = issuer.sign(&issuer.claims());
    let (test, address) = start(signed.clone()).await;
    let user = eventually(&test, address, &token).await;
    assert_eq!(user, json!({"username": format!("{url}#jane"), "groups": ["system:authenticated"]}));

    let full = Oidc {
        username_claim: "email".into(),
        groups_claim: "groups".into(),
        groups_prefix: "oidc:".into(),
        required_claims: [("hd".to_owned(), "example.com".to_owned())].into(),
        ..signed.clone()
    };
    let (test, address) = start(full).await;
    let user = eventually(&test, address, &token).await;
    assert_eq!(user["username"], "jane@example.com", "no prefix, for others cannot claim that address");
    assert_eq!(user["groups"], json!(["oidc:dev", "oidc:ops", "system:authenticated"]));
    assert_eq!(bearer(&test, address, &issuer.with("hd", json!("evil.example.com"))).await, Err(401));

    let (test, address) = start(Oidc { username_prefix: "-".into(), ..signed.clone() }).await;
    assert_eq!(eventually(&test, address, &token).await["username"], "jane");

    // Only RS256 unless more is said. What the issuer has signed otherwise is not even asked about.
    let (test, address) = start(base.clone()).await;
    let fetched = issuer.fetched.load(Ordering::SeqCst);
    let why = "oidc: id token signed with unsupported algorithm, got ES256";
    let mut said = Value::Null;
    for _ in 0..500 {
        let review = json!({"spec": {"token": token}});
        let status =
            test.admin().ok("POST /apis/authentication.k8s.io/v1/tokenreviews", review).await["status"].clone();
        said = status["error"].clone();
        if said.as_str().is_some_and(|said| said.contains(why)) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(said.as_str().is_some_and(|said| said.contains(why)), "{said}");
    assert_eq!(bearer(&test, address, &token).await, Err(401));
    assert_eq!(issuer.fetched.load(Ordering::SeqCst), fetched);

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("authentication.yaml");
    issuer.configure(&file, BY_CLAIM);
    let wrong = async |oidc: Oidc, file: Option<std::path::PathBuf>| {
        let store = LocalStore::open(tempfile::tempdir().unwrap().path(), Default::default()).unwrap();
        let authentication = Authentication { oidc: Some(oidc), config_file: file, ..Authentication::default() };
        let config = Config { authentication, ..Config::default() };
        ApiServer::new(config, Arc::new(store)).await.err().unwrap().to_string()
    };
    for (oidc, file, why) in [
        (base.clone(), Some(file), "authentication-config file and oidc-* flags are mutually exclusive"),
        (Oidc::new(url.clone(), String::new()), None, "oidc-issuer-url and oidc-client-id must be specified together"),
        (Oidc::new("http://issuer.example.com".into(), "id".into()), None, "URL scheme must be https"),
        (Oidc { signing_algorithms: vec!["HS256".into()], ..base }, None, "unsupported signing alg: \"HS256\""),
    ] {
        let said = wrong(oidc, file).await;
        assert!(said.contains(why), "{said}");
    }
}
