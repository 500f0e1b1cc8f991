//! The one exponential back-off.

use std::time::Duration;

/// Delays that grow by a factor up to a maximum, each with up to `jitter` (a fraction) added.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    factor: f64,
    jitter: f64,
    next: Duration,
}

impl Backoff {
    /// Doubles from `initial` to `max` with 20 % of jitter.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, factor: 2.0, jitter: 0.2, next: initial }
    }

    /// With another factor (at least 1).
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor.max(1.0);
        self
    }

    /// With another jitter: each delay `d` is drawn from `d..d * (1 + jitter)`.
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter.max(0.0);
        self
    }

    /// How long to wait now; the next one is longer.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.mul_f64(self.factor).min(self.max);
        if self.jitter > 0.0 { delay.mul_f64(1.0 + rand::random::<f64>() * self.jitter) } else { delay }
    }

    /// After a success: start over.
    pub fn reset(&mut self) {
        self.next = self.initial;
    }

    /// Sleeps for the next delay.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_maximum_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500)).jitter(0.0);
        let delays: Vec<_> = (0..5).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 500, 500]);
        backoff.reset();
        assert_eq!(backoff.next_delay().as_millis(), 100);
    }

    #[test]
    fn jitter_only_adds() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).jitter(0.5);
        for _ in 0..100 {
            let delay = backoff.next_delay();
            assert!((Duration::from_secs(1)..Duration::from_millis(1500)).contains(&delay), "{delay:?}");
        }
    }
}
