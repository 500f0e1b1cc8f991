use super::{ParseError, Quantity};

fn q(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn canonical_text() {
    for (input, canonical) in [
        ("0", "0"),
        ("0Ki", "0"),
        ("-0", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("01.50", "1500m"),
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        (".5", "500m"),
        ("5.", "5"),
        ("1000", "1k"),
        ("1500", "1500"),
        ("100000", "100k"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1Ki", "1Ki"),
        ("1024", "1024"),
        ("0.5Ki", "512"),
        ("1023Ki", "1023Ki"),
        ("0.0001Ki", "102400u"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12e-3", "12e-3"),
        ("1e-9", "1e-9"),
        ("1e-10", "1e-9"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("1.1n", "2n"),
        ("-1.1n", "-2n"),
        ("-1Gi", "-1Gi"),
        ("1E", "1E"),
        ("9Ei", "9223372036854775807"),
        ("99999999999999999999", "9223372036854775807"),
        ("1e99999", "9223372036854775807"),
        ("0e99999", "0"),
        ("1.3Gi", "1395864371200m"),
        ("100m", "100m"),
        ("2500000u", "2500m"),
        ("128974848", "128974848"),
        ("129e6", "129e6"),
        ("123Mi", "123Mi"),
    ] {
        assert_eq!(q(input).to_string(), canonical, "{input}");
    }
}

#[test]
fn canonical_text_is_stable() {
    for input in ["1.3Gi", "1e-10", "0.0001Ki", "9Ei", "1500", "-1.1n", "12e-3"] {
        let once = q(input);
        assert_eq!(q(&once.to_string()), once, "{input}");
    }
}

#[test]
fn bad_text() {
    for (input, error) in [
        ("", ParseError::Format),
        ("-", ParseError::Format),
        ("a", ParseError::Format),
        ("1 ", ParseError::Format),
        ("1x", ParseError::Format),
        ("é", ParseError::Format),
        ("1.2.3", ParseError::Numeric),
        (".", ParseError::Numeric),
        ("1Kii", ParseError::Suffix),
        ("1K", ParseError::Suffix),
        ("1mi", ParseError::Suffix),
        ("1e", ParseError::Suffix),
        ("1e99999999999999999999", ParseError::Suffix),
    ] {
        assert_eq!(input.parse::<Quantity>(), Err(error), "{input}");
    }
}

#[test]
fn rounding_and_order() {
    assert_eq!(q("100m").value(), 1);
    assert_eq!(q("-100m").value(), -1);
    assert_eq!(q("1500u").milli_value(), 2);
    assert_eq!(q("1Gi").value(), 1 << 30);
    assert_eq!(q("8E").milli_value(), i64::MAX);
    assert!(q("1Gi") > q("1G"));
    assert_eq!(q("1k"), q("1e3"));
    assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
    assert_eq!((q("1") - q("200m")).to_string(), "800m");
    assert_eq!((q("9E") + q("9E")).value(), i64::MAX);
}

proptest::proptest! {
    #[test]
    fn any_text_is_judged_without_panic(text in "[-+]?[0-9.]{0,40}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,6}") {
        if let Ok(quantity) = text.parse::<Quantity>() {
            assert_eq!(q(&quantity.to_string()), quantity);
        }
    }
}
