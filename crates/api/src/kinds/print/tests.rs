use super::human_duration;

#[test]
fn durations() {
    const M: i64 = 60;
    const H: i64 = 60 * M;
    const D: i64 = 24 * H;
    for (seconds, text) in [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (2 * M + 5, "2m5s"),
        (10 * M + 5, "10m"),
        (179 * M, "179m"),
        (3 * H, "3h"),
        (3 * H + M, "3h1m"),
        (8 * H + M, "8h"),
        (47 * H, "47h"),
        (2 * D, "2d"),
        (2 * D + H, "2d1h"),
        (8 * D + H, "8d"),
        (729 * D, "729d"),
        (730 * D, "2y"),
        (731 * D, "2y1d"),
        (8 * 365 * D + D, "8y"),
    ] {
        assert_eq!(human_duration(seconds), text, "{seconds}");
    }
}
