//! Whom the programs of a sandbox trust, where that is somebody beside whom the machine trusts.
//!
//! There are two files: one with the certificate of that authority alone, and one with those of the machine as well.
//! The second stands in the place of the system's bundle, and variables name them for programs that have bundles of
//! their own. Java reads neither; for it there is a key store with the same certificates.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The folder of the files, in the sandbox.
pub(crate) const FOLDER: &str = "/etc/oma";
/// The authority alone.
pub(crate) const AUTHORITY: &str = "authority.pem";
/// The authority, and whom the machine trusts.
pub(crate) const BUNDLE: &str = "bundle.pem";
/// The same for Java.
pub(crate) const STORE: &str = "bundle.jks";

/// Where systems have their bundles.
pub(crate) const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The longest bundle of a system, in bytes.
const MAX_BUNDLE: u64 = 2 << 20;

/// How programs are told: by a variable, of one of the files.
const VARIABLES: [(&str, &str); 10] = [
    ("SSL_CERT_FILE", BUNDLE),
    ("CURL_CA_BUNDLE", BUNDLE),
    ("REQUESTS_CA_BUNDLE", BUNDLE),
    ("GIT_SSL_CAINFO", BUNDLE),
    ("PIP_CERT", BUNDLE),
    ("AWS_CA_BUNDLE", BUNDLE),
    ("CARGO_HTTP_CAINFO", BUNDLE),
    // These two trust it beside those that they bring along.
    ("NODE_EXTRA_CA_CERTS", AUTHORITY),
    ("DENO_CERT", AUTHORITY),
    (JAVA, STORE),
];
const JAVA: &str = "JAVA_TOOL_OPTIONS";

/// What programs are told of whom to trust.
pub(crate) fn variables() -> BTreeMap<String, String> {
    let variables = VARIABLES.iter().map(|(name, file)| {
        let path = format!("{FOLDER}/{file}");
        let value = match *name {
            JAVA => format!("-Djavax.net.ssl.trustStore={path} -Djavax.net.ssl.trustStoreType=JKS"),
            _ => path,
        };
        ((*name).to_owned(), value)
    });
    variables.collect()
}

/// Whether a variable is one of those.
pub(crate) fn is_variable(name: &str) -> bool {
    VARIABLES.iter().any(|(known, _)| *known == name)
}

/// The files, with the certificates of this machine beside that of the authority, which is PEM.
pub(crate) fn files(authority: &str) -> [(&'static str, Vec<u8>); 3] {
    let system = SYSTEM.iter().find_map(|path| {
        let mut text = String::new();
        let file = fs::File::open(path).ok()?;
        file.take(MAX_BUNDLE).read_to_string(&mut text).ok()?;
        (!text.is_empty()).then_some(text)
    });
    let bundle = format!("{authority}{}", system.unwrap_or_default());
    let store = key_store(&bundle);
    [
        (AUTHORITY, authority.as_bytes().to_vec()),
        (STORE, store),
        (BUNDLE, bundle.into_bytes()),
    ]
}

/// A key store of Java's own kind (JKS, version 2) with these certificates. It is read without a password, and then its
/// digest is not looked at.
fn key_store(bundle: &str) -> Vec<u8> {
    let certificates: Vec<Vec<u8>> = certificates(bundle).collect();
    let count = u32::try_from(certificates.len()).unwrap_or_default();
    let mut store = Vec::new();
    store.extend(0xfeed_feed_u32.to_be_bytes());
    store.extend(2_u32.to_be_bytes());
    store.extend(count.to_be_bytes());
    let text = |store: &mut Vec<u8>, text: &str| {
        store.extend(u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
        store.extend(text.as_bytes());
    };
    for (number, certificate) in certificates.iter().enumerate() {
        // A certificate that is trusted, by a name of its own, since no time that matters.
        store.extend(2_u32.to_be_bytes());
        text(&mut store, &format!("authority-{number}"));
        store.extend(0_u64.to_be_bytes());
        text(&mut store, "X.509");
        store.extend(u32::try_from(certificate.len()).unwrap_or_default().to_be_bytes());
        store.extend(certificate);
    }
    store.extend([0; 20]);
    store
}

/// The certificates in a PEM text.
fn certificates(text: &str) -> impl Iterator<Item = Vec<u8>> {
    text.split("-----BEGIN CERTIFICATE-----")
        .skip(1)
        .filter_map(|part| {
            let (body, _) = part.split_once("-----END CERTIFICATE-----")?;
            let body: String = body.split_whitespace().collect();
            STANDARD.decode(body).ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_taken_out_of_pem() {
        let text = "# a\n-----BEGIN CERTIFICATE-----\nAQID\nBA==\n-----END CERTIFICATE-----\n\
                    -----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nBQ==";
        let found: Vec<Vec<u8>> = certificates(text).collect();
        assert_eq!(found, [[1, 2, 3, 4]]);
        let store = key_store(text);
        assert_eq!(&store[8..12], [0, 0, 0, 1]);
        assert_eq!(store.len(), 12 + 4 + 2 + 11 + 8 + 2 + 5 + 4 + 4 + 20);
    }

    #[test]
    fn the_authority_comes_first() {
        let authority = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
        let [alone, _, bundle] = files(authority);
        assert_eq!(alone.1, authority.as_bytes());
        assert!(bundle.1.starts_with(authority.as_bytes()));
    }
}
