//! What is known about tokens, for a while. Tokens are remembered by their digest under a key of this process, so that
//! memory never holds what could be used; how many are remembered is bounded.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use ring::hmac;

use super::Outcome;

/// Entries of one memory, as upstream's.
const CAPACITY: usize = 4096;

/// A token's digest.
pub(super) type Fingerprint = [u8; 32];

static KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
    let bytes: [u8; 32] = rand::random();
    hmac::Key::new(hmac::HMAC_SHA256, &bytes)
});

/// Of a token.
pub(super) fn fingerprint(token: &str) -> Fingerprint {
    digest(token, &[])
}

/// Of a token and the audiences it is to be good for.
fn digest(token: &str, audiences: &[String]) -> Fingerprint {
    let mut context = hmac::Context::with_key(&KEY);
    context.update(token.as_bytes());
    for audience in audiences {
        // Lengths keep audiences apart from each other.
        context.update(&audience.len().to_be_bytes());
        context.update(audience.as_bytes());
    }
    let mut fingerprint = Fingerprint::default();
    let tag = context.sign();
    fingerprint.copy_from_slice(tag.as_ref().get(..32).unwrap_or(&[0; 32]));
    fingerprint
}

/// Values that are good until some time.
pub(super) struct Remembered<T> {
    entries: HashMap<Fingerprint, (T, i64)>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<T: Clone> Remembered<T> {
    /// What is known and still good. Times are in any unit, as long as it is one.
    pub(super) fn get(&self, key: &Fingerprint, now: i64) -> Option<T> {
        self.entries.get(key).filter(|(_, until)| *until > now).map(|(value, _)| value.clone())
    }

    /// Remembers; forgets what is over, or the first to be over, when there is no room.
    pub(super) fn put(&mut self, key: Fingerprint, value: T, now: i64, until: i64) {
        if until <= now {
            return;
        }
        if self.entries.len() >= CAPACITY && !self.entries.contains_key(&key) {
            self.entries.retain(|_, (_, until)| *until > now);
            // A sixteenth at once, so that a flood of new tokens does not sort for each of them.
            if self.entries.len() >= CAPACITY {
                let mut ends: Vec<i64> = self.entries.values().map(|(_, until)| *until).collect();
                let (_, limit, _) = ends.select_nth_unstable(CAPACITY / 16);
                let limit = *limit;
                let mut spare = CAPACITY / 16;
                self.entries.retain(|_, (_, until)| {
                    let goes = *until <= limit && spare > 0;
                    spare -= usize::from(goes);
                    !goes
                });
            }
        }
        self.entries.insert(key, (value, until));
    }
}

/// Answers of somebody who is slow to ask. Those who want to know the same at the same time share one question, which goes on
/// when the first of them leaves.
pub(super) struct Answers {
    keep: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    known: Remembered<Outcome>,
    asked: HashMap<Fingerprint, Shared<BoxFuture<'static, Outcome>>>,
}

impl Answers {
    /// Answers are good for as long as `keep`; errors are not kept.
    pub(super) fn new(keep: Duration) -> Self {
        Self { keep, state: Arc::default() }
    }

    /// The answer, known or asked for.
    pub(super) async fn get<F>(&self, token: &str, audiences: &[String], ask: impl FnOnce() -> F) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let key = digest(token, audiences);
        let asked = {
            let mut state = self.state.lock();
            if let Some(outcome) = state.known.get(&key, now_ms()) {
                return outcome;
            }
            match state.asked.get(&key) {
                Some(asked) => asked.clone(),
                // A question outlives who asked it, and anybody may ask.
                None if state.asked.len() >= CAPACITY => return Err("too many tokens are being asked about".into()),
                None => {
                    let asked = self.ask(key, ask());
                    state.asked.insert(key, asked.clone());
                    asked
                }
            }
        };
        asked.await
    }

    fn ask(
        &self,
        key: Fingerprint,
        question: impl Future<Output = Outcome> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Outcome>> {
        let (state, keep) = (self.state.clone(), i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX));
        let task = tokio::spawn(async move {
            let outcome = question.await;
            let mut state = state.lock();
            state.asked.remove(&key);
            if outcome.is_ok() {
                let now = now_ms();
                state.known.put(key, outcome.clone(), now, now.saturating_add(keep));
            }
            outcome
        });
        async move { task.await.unwrap_or_else(|error| Err(error.to_string())) }.boxed().shared()
    }
}

fn now_ms() -> i64 {
    keelson_client::clock::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn memory_is_bounded_and_forgets_first_what_ends_first() {
        let mut known = Remembered::default();
        let key = |i: usize| fingerprint(&i.to_string());
        for i in 0..CAPACITY + 1 {
            known.put(key(i), i, 0, 1000 + i as i64);
        }
        assert!(known.entries.len() <= CAPACITY);
        assert_eq!((known.get(&key(0), 0), known.get(&key(CAPACITY), 0)), (None, Some(CAPACITY)));
        assert_eq!(known.get(&key(CAPACITY), 9999), None, "its time is over");
        for i in 0..CAPACITY * 2 {
            known.put(key(i), i, 0, 5);
        }
        assert!(known.entries.len() <= CAPACITY, "also when all end at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_asked_once_and_its_answer_kept() {
        let answers = Answers::new(Duration::from_secs(120));
        let asked = Arc::new(AtomicUsize::new(0));
        let get = |token: &'static str, outcome: Outcome| {
            let (answers, asked) = (&answers, asked.clone());
            async move {
                let ask = || async move {
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    outcome
                };
                answers.get(token, &[], ask).await
            }
        };
        let (a, b, c) = tokio::join!(get("a", Ok(None)), get("a", Ok(None)), get("b", Ok(None)));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        get("a", Ok(None)).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2, "kept");
        tokio::time::advance(Duration::from_secs(121)).await;
        get("a", Ok(None)).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 3, "forgotten");
        get("e", Err("no".into())).await.unwrap_err();
        get("e", Err("no".into())).await.unwrap_err();
        assert_eq!(asked.load(Ordering::Relaxed), 5, "errors are asked for again");
        // Whoever asked first may leave.
        tokio::select! {
            biased;
            _ = get("f", Ok(None)) => unreachable!(),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        get("f", Ok(None)).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 6);
    }

    #[tokio::test]
    async fn questions_are_bounded() {
        let answers = Answers::new(Duration::from_secs(120));
        for i in 0..CAPACITY {
            // Nobody waits for the answer.
            let token = i.to_string();
            let question = answers.get(&token, &[], std::future::pending::<Outcome>);
            assert!(question.now_or_never().is_none(), "{i}");
        }
        let more = answers.get("more", &[], std::future::pending::<Outcome>).now_or_never();
        assert_eq!(more.map(|outcome| outcome.is_err()), Some(true));
        assert_eq!(answers.state.lock().asked.len(), CAPACITY);
    }
}
