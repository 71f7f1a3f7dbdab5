//! Parent tokens that come from clients: presented as they are, and with a right signature under whatever was written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_domain::Timestamp;
use oma_engine::parent_token::Secret;
use secrecy::ExposeSecret as _;

fuzz_target!(|bytes: &[u8]| {
    let secret = Secret::new(&[7; 32]).expect("32 bytes");
    assert!(secret.verify(bytes, Timestamp(0)).is_none(), "nobody signed this");
    let Some(claims) = secret.verify(secret.sign_bytes(bytes).as_bytes(), Timestamp(0)) else {
        return;
    };
    // What is accepted can be said again, and says the same.
    if let Ok(again) = secret.sign(&claims) {
        let again = secret.verify(again.expose_secret().as_bytes(), Timestamp(0));
        assert_eq!(again.as_ref(), Some(&claims));
    }
});
