//! The authority of one session: certificates for the hosts whose connections are opened, which nobody trusts but that
//! session's sandbox.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use secrecy::zeroize::Zeroizing;

/// How long certificates hold. What a sandbox trusts it has from its start, however long it lives.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * DAY);
const LEAF_LIFE: Duration = Duration::from_secs(30 * DAY);
/// How old a certificate is when another one is made.
const LEAF_AGE: Duration = Duration::from_secs(7 * DAY);
/// How long ago they have begun to hold, for clocks that are behind.
const BEFORE: Duration = Duration::from_secs(DAY);
const DAY: u64 = 24 * 60 * 60;

/// The most certificates that are kept; the oldest goes first.
const MAX_LEAVES: usize = 512;

/// A private key of P-256 (RFC 5208 around RFC 5915) up to its number, with the public key left to be reckoned.
const PKCS8_P256: [u8; 35] = [
    0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
    0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04,
    0x20,
];

/// What makes certificates did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a certificate could not be made: {0}")]
pub struct Unmade(String);

/// Signs for one session. Its key is nowhere but in this process's memory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// The key of all leaves.
    key: KeyPair,
    leaves: Mutex<Leaves>,
}

#[derive(Default)]
struct Leaves {
    by_host: HashMap<String, (Arc<CertifiedKey>, SystemTime)>,
    by_age: VecDeque<String>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// The authority of a session whose key is `seed`: whoever has the same seed is the same authority. `name` is for
    /// people.
    ///
    /// # Errors
    /// [`Unmade`]; of 2^32 seeds one is no key.
    pub fn new(name: &str, seed: &Zeroizing<[u8; 32]>) -> Result<Self, Unmade> {
        let mut der = Zeroizing::new(PKCS8_P256.to_vec());
        der.extend_from_slice(&seed[..]);
        let der = PrivatePkcs8KeyDer::from(der.as_slice());
        let signer = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).map_err(unmade)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("OpenClaw Managed Agents {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        hold(&mut params, AUTHORITY_LIFE);
        let certificate = params.self_signed(&signer).map_err(unmade)?.der().clone();
        Ok(Self {
            issuer: Issuer::new(params, signer),
            certificate,
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unmade)?,
            leaves: Mutex::default(),
        })
    }

    /// What the sandbox is to trust, as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        let text = STANDARD.encode(&self.certificate);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem + "-----END CERTIFICATE-----\n"
    }

    /// The certificate that the sandbox is to trust.
    #[cfg(test)]
    pub(in crate::proxy) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// How to speak as this host, in one of these protocols.
    ///
    /// # Errors
    /// [`Unmade`].
    pub(super) fn server(&self, host: &str, protocols: Vec<Vec<u8>>) -> Result<ServerConfig, Unmade> {
        let leaf = self.leaf(host, SystemTime::now())?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unmade)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Always(leaf)));
        config.alpn_protocols = protocols;
        // Each connection is looked at from its beginning.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn leaf(&self, host: &str, now: SystemTime) -> Result<Arc<CertifiedKey>, Unmade> {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((leaf, made)) = leaves.by_host.get(host)
            && now.duration_since(*made).is_ok_and(|age| age < LEAF_AGE)
        {
            return Ok(Arc::clone(leaf));
        }
        let mut params = CertificateParams::new([host.to_owned()]).map_err(unmade)?;
        // A common name is no longer than 64 characters; nobody reads it where there are others.
        params.distinguished_name = named(host.get(..64).unwrap_or(host));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let mut serial: [u8; 16] = rand::random();
        // Positive, and of a length that does not vary.
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        hold(&mut params, LEAF_LIFE);
        let certificate = params.signed_by(&self.key, &self.issuer).map_err(unmade)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let key = aws_lc_rs::sign::any_ecdsa_type(&key).map_err(unmade)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let leaf = Arc::new(CertifiedKey::new(chain, key));
        if leaves
            .by_host
            .insert(host.to_owned(), (Arc::clone(&leaf), now))
            .is_none()
        {
            leaves.by_age.push_back(host.to_owned());
        }
        if leaves.by_age.len() > MAX_LEAVES
            && let Some(oldest) = leaves.by_age.pop_front()
        {
            leaves.by_host.remove(&oldest);
        }
        Ok(leaf)
    }
}

fn unmade(error: impl std::fmt::Display) -> Unmade {
    Unmade(error.to_string())
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn hold(params: &mut CertificateParams, life: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BEFORE);
    params.not_after = epoch + now + life;
}

/// Speaks as one host whatever is asked for: that has been looked at before.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::{ServerName, UnixTime};

    fn trusts(trusted: &Authority, chain: &[CertificateDer<'_>], host: &str) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.certificate.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let name = ServerName::try_from(host).unwrap();
        verifier
            .verify_server_cert(&chain[0], &[], &name, &[], UnixTime::now())
            .is_ok()
    }

    #[test]
    fn the_same_seed_is_the_same_authority_and_another_is_another() {
        let one = Authority::new("one", &Zeroizing::new([7; 32])).unwrap();
        let again = Authority::new("one", &Zeroizing::new([7; 32])).unwrap();
        let other = Authority::new("one", &Zeroizing::new([8; 32])).unwrap();
        let leaf = one.leaf("api.example", SystemTime::now()).unwrap();
        assert!(trusts(&one, &leaf.cert, "api.example"));
        assert!(trusts(&again, &leaf.cert, "api.example"), "after a restart");
        assert!(!trusts(&other, &leaf.cert, "api.example"));
        for host in ["other.example", "a.api.example", "example"] {
            assert!(!trusts(&one, &leaf.cert, host), "{host}");
        }
        assert!(Authority::new("none", &Zeroizing::new([0; 32])).is_err());
        assert!(Authority::new("none", &Zeroizing::new([0xff; 32])).is_err());
    }

    #[test]
    fn certificates_are_kept_until_they_are_old_and_many() {
        let authority = Authority::new("one", &Zeroizing::new([7; 32])).unwrap();
        let now = SystemTime::now();
        let first = authority.leaf("first.example", now).unwrap();
        assert!(Arc::ptr_eq(
            &first,
            &authority.leaf("first.example", now).unwrap()
        ));
        let later = authority.leaf("first.example", now + LEAF_AGE).unwrap();
        assert!(!Arc::ptr_eq(&first, &later));
        for number in 0..MAX_LEAVES {
            authority.leaf(&format!("{number}.example"), now).unwrap();
        }
        let leaves = authority.leaves.lock().unwrap();
        assert_eq!(
            (leaves.by_host.len(), leaves.by_age.len()),
            (MAX_LEAVES, MAX_LEAVES)
        );
        assert!(!leaves.by_host.contains_key("first.example"));
    }

    #[test]
    fn what_is_to_be_trusted_is_one_certificate() {
        let pem = Authority::new("one", &Zeroizing::new([7; 32])).unwrap().pem();
        assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 1);
        assert!(pem.lines().all(|line| line.len() <= 64) && !pem.contains("KEY"));
    }
}
