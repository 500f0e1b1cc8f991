//! Sets of completion indexes as text: `1,3-5,7`.

/// How many indexes the text names. All must be below `completions`, in order.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let mut last: Option<i64> = None;
    let mut total = 0;
    for part in text.split(',') {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let number = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
        Ok(n) if n >= completions => Err(format!("too large index: {text:?}")),
        Ok(n) => Ok(n),
    };
    let mut limits = text.split('-');
    let (first, second, rest) = (limits.next().unwrap_or_default(), limits.next(), limits.next());
    if rest.is_some() {
        return Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let first = number(first)?;
    match second.map(number).transpose()? {
        None => Ok((first, first)),
        Some(end) if first >= end => Err(format!("non-increasing order, previous: {first}, current: {end}")),
        Some(end) => Ok((first, end)),
    }
}

/// The first index that both sets have. Parts that are no intervals are left to [`count`].
pub(super) fn overlap(a: &str, b: &str, completions: i64) -> Option<i64> {
    let intervals = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (a, b) = (intervals(a), intervals(b));
    let (mut i, mut j) = (0, 0);
    while let (Some((a_first, a_end)), Some((b_first, b_end))) = (a.get(i), b.get(j)) {
        if a_first <= b_end && b_first <= a_end {
            return Some(*a_first.max(b_first));
        }
        if a_first <= b_first { i += 1 } else { j += 1 }
    }
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts() {
        let check = |text, expected: Result<i64, &str>| {
            assert_eq!(super::count(text, 10), expected.map_err(str::to_owned), "{text}");
        };
        check("", Ok(0));
        check("0,2-4,9", Ok(5));
        check("10", Err("too large index: \"10\""));
        check("1-12", Err("too large index: \"12\""));
        check("x", Err("cannot convert string to integer for index: \"x\""));
        check("4-2", Err("non-increasing order, previous: 4, current: 2"));
        check("3,1", Err("non-increasing order, previous: 3, current: 1"));
        check(
            "1-2-3",
            Err(
                "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
            ),
        );
    }

    #[test]
    fn overlaps() {
        assert_eq!(super::overlap("1,3-5", "2,6-8", 10), None);
        assert_eq!(super::overlap("1,3-5", "2,4-8", 10), Some(4));
        assert_eq!(super::overlap("", "1", 10), None);
    }
}
