//! Signatures after the Standard Webhooks specification
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::clock::Timestamp;
use crate::secret::Secret;

/// What a secret begins with whose bytes stand in base64.
const ENCODED: &str = "whsec_";

/// Bytes of a key: fewer are guessed, more say nothing new (the specification has 24 to 64).
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=256;

/// Why a text cannot sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadKey {
    #[error("what follows `whsec_` is no base64: copy it whole, or give a secret without `whsec_`")]
    Encoding,
    #[error("expected a secret of 16 to 256 bytes, such as `openssl rand -hex 32` prints")]
    Length,
}

/// Signs.
#[derive(Clone)]
pub(super) struct Key(Hmac<Sha256>);

impl Key {
    /// The key that a secret says: its text, or the bytes behind `whsec_` in base64.
    ///
    /// # Errors
    /// See [`BadKey`].
    pub(super) fn of(secret: &Secret) -> Result<Self, BadKey> {
        let text = secret.expose();
        let bytes = match text.strip_prefix(ENCODED) {
            Some(encoded) => BASE64.decode(encoded).map_err(|_| BadKey::Encoding)?,
            None => text.as_bytes().to_vec(),
        };
        if !KEY_BYTES.contains(&bytes.len()) {
            return Err(BadKey::Length);
        }
        Ok(Self(Hmac::new_from_slice(&bytes).expect("a key of any length will do")))
    }

    /// The header `webhook-signature` of a body that is sent at this time under this id.
    pub(super) fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{}.", seconds(at)).as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
    }
}

/// The header `webhook-timestamp`.
pub(super) fn seconds(at: Timestamp) -> u64 {
    at.as_millis() / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<Key, BadKey> {
        Key::of(&Secret::new(text.to_owned(), "${KEY}"))
    }

    /// The example that the libraries of the specification test themselves with.
    #[test]
    fn a_signature_is_as_the_specification_has_it() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
        let at = Timestamp::from_millis(1_614_265_330_999);
        let signed = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_cannot_sign_is_refused() {
        assert_eq!(key("whsec_???").err(), Some(BadKey::Encoding));
        assert_eq!(key(&"k".repeat(15)).err(), Some(BadKey::Length));
        assert_eq!(key("").err(), Some(BadKey::Length));
        assert!(key(&"k".repeat(16)).is_ok());
        assert!(key(&"k".repeat(256)).is_ok());
        assert_eq!(key(&"k".repeat(257)).err(), Some(BadKey::Length));
    }
}
