use http_body_util::BodyExt;

use super::*;

/// Pieces of one byte, and what says whether they are held.
fn pieces(n: usize) -> (Body, Arc<()>) {
    let token = Arc::new(());
    let held = token.clone();
    let mut left = n;
    let pieces = std::iter::from_fn(move || {
        let _ = &held;
        left = left.checked_sub(1)?;
        Some(Ok(Bytes::from_static(b"x")))
    });
    (Body::Chunks(Box::new(pieces)), token)
}

fn held(token: &Arc<()>) -> bool {
    Arc::strong_count(token) > 1
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_is_let_go() {
    let (body, token) = pieces(3);
    let guard = Arc::new(());
    let mut body = body.within(Duration::from_secs(60), guard.clone());
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "x");
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(held(&token) && held(&guard));
    assert!(body.frame().await.unwrap().is_ok());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!held(&token) && !held(&guard), "while the body lives, and nobody polls it");
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the response was not read in time");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn what_is_read_to_its_end_holds_nothing() {
    let (body, token) = pieces(3);
    let guard = Arc::new(());
    let mut body = body.within(Duration::from_secs(60), guard.clone());
    for _ in 0..3 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    assert!(held(&guard));
    assert!(body.frame().await.is_none());
    assert!(!held(&token) && !held(&guard), "before the body is dropped");
    let (body, token) = pieces(3);
    drop(body.within(Duration::from_secs(60), guard.clone()));
    assert!(!held(&token) && !held(&guard));
}

#[tokio::test]
async fn one_piece_is_a_whole() {
    let one: Vec<Result<Bytes, BoxError>> = vec![Ok("all".into())];
    let guard = Arc::new(());
    let body = Body::Chunks(Box::new(one.into_iter())).within(Duration::from_secs(60), guard.clone());
    assert_eq!(http_body::Body::size_hint(&body).exact(), Some(3));
    assert!(!held(&guard));
}
