//! The ciphers of upstream's providers, each with its nonce in front of what it sealed. AES-GCM binds a value to its key in
//! the store; the other two cannot, upstream's neither.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit, consts::U12};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{AesGcm, Nonce};
use crypto_secretbox::XSalsa20Poly1305;

/// Bytes by which a value grows at most, prefixes aside.
pub(super) const OVERHEAD: usize = 40;

const GCM_NONCE: usize = 12;
const CBC_BLOCK: usize = 16;
const BOX_NONCE: usize = 24;
const TAG: usize = 16;

const SHORT: &str = "the stored data was shorter than the required size";

/// A key, ready to use.
pub(super) enum Cipher {
    Identity,
    Gcm128(Box<AesGcm<aes::Aes128, U12>>),
    Gcm192(Box<AesGcm<aes::Aes192, U12>>),
    Gcm256(Box<AesGcm<aes::Aes256, U12>>),
    /// The key; its length says which AES.
    Cbc(Vec<u8>),
    Secretbox(Box<XSalsa20Poly1305>),
}

/// What can be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    AesGcm,
    AesCbc,
    Secretbox,
}

impl Algorithm {
    /// Lengths that a key may have, in bytes.
    pub(super) fn key_lengths(self) -> &'static [usize] {
        match self {
            Self::AesGcm | Self::AesCbc => &[16, 24, 32],
            Self::Secretbox => &[32],
        }
    }

    /// `None`: the key has another length.
    pub(super) fn cipher(self, key: &[u8]) -> Option<Cipher> {
        Some(match (self, key.len()) {
            (Self::AesGcm, 16) => Cipher::Gcm128(Box::new(AesGcm::new_from_slice(key).ok()?)),
            (Self::AesGcm, 24) => Cipher::Gcm192(Box::new(AesGcm::new_from_slice(key).ok()?)),
            (Self::AesGcm, 32) => Cipher::Gcm256(Box::new(AesGcm::new_from_slice(key).ok()?)),
            (Self::AesCbc, 16 | 24 | 32) => Cipher::Cbc(key.to_vec()),
            (Self::Secretbox, 32) => Cipher::Secretbox(Box::new(XSalsa20Poly1305::new_from_slice(key).ok()?)),
            _ => return None,
        })
    }
}

impl Cipher {
    /// Appends the sealed form of `plain`.
    pub(super) fn seal(&self, plain: &[u8], context: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        match self {
            Self::Identity => out.extend_from_slice(plain),
            Self::Gcm128(cipher) => gcm_seal(&**cipher, plain, context, out)?,
            Self::Gcm192(cipher) => gcm_seal(&**cipher, plain, context, out)?,
            Self::Gcm256(cipher) => gcm_seal(&**cipher, plain, context, out)?,
            Self::Cbc(key) => {
                let iv: [u8; CBC_BLOCK] = random()?;
                out.extend_from_slice(&iv);
                let sealed = match key.len() {
                    16 => cbc::Encryptor::<aes::Aes128>::new_from_slices(key, &iv)
                        .map(|cbc| cbc.encrypt_padded_vec_mut::<Pkcs7>(plain)),
                    24 => cbc::Encryptor::<aes::Aes192>::new_from_slices(key, &iv)
                        .map(|cbc| cbc.encrypt_padded_vec_mut::<Pkcs7>(plain)),
                    _ => cbc::Encryptor::<aes::Aes256>::new_from_slices(key, &iv)
                        .map(|cbc| cbc.encrypt_padded_vec_mut::<Pkcs7>(plain)),
                };
                out.extend_from_slice(&sealed.map_err(|_| "the key has a wrong length")?);
            }
            Self::Secretbox(cipher) => {
                let nonce: [u8; BOX_NONCE] = random()?;
                out.extend_from_slice(&nonce);
                let sealed = cipher.encrypt(&nonce.into(), plain).map_err(|_| "encryption failed")?;
                out.extend_from_slice(&sealed);
            }
        }
        Ok(())
    }

    /// What was sealed; the errors are upstream's.
    pub(super) fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, &'static str> {
        match self {
            Self::Identity => Ok(sealed.to_vec()),
            Self::Gcm128(cipher) => gcm_open(&**cipher, sealed, context),
            Self::Gcm192(cipher) => gcm_open(&**cipher, sealed, context),
            Self::Gcm256(cipher) => gcm_open(&**cipher, sealed, context),
            Self::Cbc(key) => cbc_open(key, sealed),
            Self::Secretbox(cipher) => {
                let (nonce, sealed) = sealed.split_first_chunk::<BOX_NONCE>().ok_or(SHORT)?;
                if sealed.len() < TAG {
                    return Err(SHORT);
                }
                // The words are upstream's, though what is wrong is the key or the data.
                cipher.decrypt(nonce.into(), sealed).map_err(|_| "output array was not large enough for encryption")
            }
        }
    }
}

fn gcm_seal<C>(cipher: &C, plain: &[u8], context: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str>
where
    C: Aead<NonceSize = U12>,
{
    let nonce: [u8; GCM_NONCE] = random()?;
    out.extend_from_slice(&nonce);
    let payload = Payload { msg: plain, aad: context };
    let sealed = cipher.encrypt(&Nonce::from(nonce), payload).map_err(|_| "encryption failed")?;
    out.extend_from_slice(&sealed);
    Ok(())
}

fn gcm_open<C: Aead<NonceSize = U12>>(cipher: &C, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (nonce, sealed) = sealed.split_first_chunk::<GCM_NONCE>().ok_or(SHORT)?;
    let payload = Payload { msg: sealed, aad: context };
    cipher.decrypt(&Nonce::from(*nonce), payload).map_err(|_| "cipher: message authentication failed")
}

fn cbc_open(key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (iv, sealed) = sealed.split_first_chunk::<CBC_BLOCK>().ok_or(SHORT)?;
    if !sealed.len().is_multiple_of(CBC_BLOCK) {
        return Err("the stored data is not a multiple of the block size");
    }
    if sealed.is_empty() {
        return Err("invalid PKCS7 data (empty or not padded)");
    }
    let opened = match key.len() {
        16 => cbc::Decryptor::<aes::Aes128>::new_from_slices(key, iv)
            .map(|cbc| cbc.decrypt_padded_vec_mut::<Pkcs7>(sealed)),
        24 => cbc::Decryptor::<aes::Aes192>::new_from_slices(key, iv)
            .map(|cbc| cbc.decrypt_padded_vec_mut::<Pkcs7>(sealed)),
        _ => cbc::Decryptor::<aes::Aes256>::new_from_slices(key, iv)
            .map(|cbc| cbc.decrypt_padded_vec_mut::<Pkcs7>(sealed)),
    };
    opened.map_err(|_| "the key has a wrong length")?.map_err(|_| "invalid padding on input")
}

fn random<const N: usize>() -> Result<[u8; N], &'static str> {
    let value = ring::rand::generate::<[u8; N]>(&ring::rand::SystemRandom::new());
    value.map(|value| value.expose()).map_err(|_| "unable to read sufficient random bytes")
}
