//! Requests in an encoding, and what comes back.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use keelson_api::codec::Encoding;
use serde_json::Value;

use super::support::Api;

/// What came back: code, content type, body.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) content_type: String,
    pub(crate) bytes: Bytes,
}

impl Answer {
    /// The body as a document of the encoding that its content type names.
    #[track_caller]
    pub(crate) fn value(&self) -> Value {
        let media_type = self.content_type.split(';').next().unwrap();
        let encoding =
            Encoding::from_media_type(media_type).unwrap_or_else(|| panic!("answered {}", self.content_type));
        let decoded = encoding.decode(&self.bytes);
        decoded.unwrap_or_else(|e| panic!("{} {e}: {:?}", self.content_type, self.bytes)).value
    }
}

/// A request with this `Accept` header. A body is sent in `encoding`.
pub(crate) async fn call(api: &Api, request: &str, accept: &str, body: Option<(&[u8], Encoding)>) -> Answer {
    let (method, path) = request.split_once(' ').unwrap();
    let (bytes, encoding) = body.unwrap_or((b"", Encoding::Json));
    let request = format!("{method}+{} {path}", encoding.media_type());
    let response = api.send_with(&request, bytes.to_vec(), &[("accept", accept)]).await;
    let content_type = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    let code = response.status().as_u16();
    Answer { code, content_type, bytes: response.into_body().collect().await.unwrap().to_bytes() }
}

/// A read that must succeed in just this encoding.
pub(crate) async fn read(api: &Api, path: &str, encoding: Encoding) -> Answer {
    read_as(api, path, encoding, "").await
}

/// As [`read`], with more parameters of the media type: `;as=Table…`.
pub(crate) async fn read_as(api: &Api, path: &str, encoding: Encoding, parameters: &str) -> Answer {
    let accept = format!("{}{parameters}", encoding.media_type());
    let answer = call(api, &format!("GET {path}"), &accept, None).await;
    assert_eq!(answer.code, 200, "{path} {accept}: {:?}", answer.bytes);
    assert_eq!(answer.content_type, encoding.media_type(), "{path}");
    answer
}
