use super::*;

#[test]
fn keys() {
    for (name, value, dialect, outcome) in [
        ("authorization", "Bearer s3cret", Dialect::Openclaw, Ok(())),
        ("authorization", "bearer   s3cret ", Dialect::Openclaw, Ok(())),
        ("authorization", "BEARER s3cret", Dialect::Claude, Ok(())),
        ("x-api-key", "s3cret", Dialect::Claude, Ok(())),
        (
            "x-api-key",
            "s3cret",
            Dialect::Openclaw,
            Err("The Authorization header is missing"),
        ),
        (
            "x-other",
            "s3cret",
            Dialect::Openclaw,
            Err("The Authorization header is missing"),
        ),
        (
            "authorization",
            "Bearer",
            Dialect::Openclaw,
            Err("The bearer token is empty"),
        ),
        (
            "authorization",
            "Bearer  ",
            Dialect::Openclaw,
            Err("The bearer token is empty"),
        ),
        (
            "authorization",
            "s3cret",
            Dialect::Openclaw,
            Err("The Authorization header must use the Bearer scheme"),
        ),
        (
            "authorization",
            "Basic s3cret",
            Dialect::Openai,
            Err("The Authorization header must use the Bearer scheme"),
        ),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("legal header"));
        let found = credential(&headers, dialect).map(|key| assert_eq!(key, b"s3cret"));
        let found = found.map_err(|fault| {
            assert_eq!(fault.status(), StatusCode::UNAUTHORIZED);
            fault.message().to_owned()
        });
        assert_eq!(
            found.as_ref().map_err(String::as_str),
            outcome.as_ref().map(|()| &()).map_err(|text| *text),
            "{name}: {value}"
        );
    }
}
