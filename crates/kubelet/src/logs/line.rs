//! One line of a CRI log: `2026-01-02T03:04:05.000000006Z stdout F text`.

use jiff::Timestamp;

/// A parsed line; the text is borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// RFC 3339 with nanoseconds, as written.
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// The container's line goes on in the next log line.
    pub partial: bool,
    pub text: &'a [u8],
}

/// Parses a line without its newline; `None` when it is not one.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    if !matches!(stream, "stdout" | "stderr") {
        return None;
    }
    // Tags are separated by colons; the first says whether the line is whole.
    let tag = parts.next()?.split(|byte| *byte == b':').next()?;
    let partial = match tag {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line { time, stream, partial, text: parts.next().unwrap_or_default() })
}

impl Line<'_> {
    /// When the line was written.
    pub(crate) fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let time = "2026-01-02T03:04:05.000000006Z";
        for (rest, expected) in [
            ("stdout F hello world", Some(("stdout", false, "hello world"))),
            ("stderr P part", Some(("stderr", true, "part"))),
            ("stdout F ", Some(("stdout", false, ""))),
            ("stdout F", Some(("stdout", false, ""))),
            ("stdout P:X:Y tagged", Some(("stdout", true, "tagged"))),
            ("stdin F x", None),
            ("stdout Q x", None),
            ("", None),
        ] {
            let line = format!("{time} {rest}");
            let got = parse(line.as_bytes());
            let got = got.map(|l| (l.stream, l.partial, std::str::from_utf8(l.text).unwrap()));
            assert_eq!(got, expected, "{rest}");
        }
        assert_eq!(parse(format!("{time} stdout F x").as_bytes()).unwrap().timestamp().unwrap().subsec_nanosecond(), 6);
    }
}
