//! What a certificate may be used for: the names of `spec.usages` and what stands for them in a certificate.

/// The usages of one certificate.
#[derive(Debug, Default)]
pub(super) struct Usages {
    /// KeyUsage: bit n of RFC 5280, 4.2.1.3 as `1 << n`.
    key: u16,
    /// Object identifiers of ExtendedKeyUsage, each once.
    pub(super) extended: Vec<&'static [u64]>,
}

impl Usages {
    /// The error names what is none.
    pub(super) fn of(names: &[&str]) -> Result<Self, String> {
        let mut usages = Self::default();
        for name in names {
            if let Some(bit) = key(name) {
                usages.key |= 1 << bit;
            } else {
                let oid = extended(name).ok_or_else(|| format!("unrecognized usage {name:?}"))?;
                if !usages.extended.contains(&oid) {
                    usages.extended.push(oid);
                }
            }
        }
        Ok(usages)
    }

    /// The bit string of KeyUsage: its bytes, the first bit highest, and how many bits count. `None` for none.
    pub(super) fn key(&self) -> Option<(Vec<u8>, usize)> {
        let bits = usize::try_from(u16::BITS - self.key.leading_zeros()).ok().filter(|bits| *bits > 0)?;
        let bytes = self.key.reverse_bits().to_be_bytes();
        Some((bytes.iter().copied().take(bits.div_ceil(8)).collect(), bits))
    }
}

fn key(name: &str) -> Option<u8> {
    Some(match name {
        "signing" | "digital signature" => 0,
        "content commitment" => 1,
        "key encipherment" => 2,
        "data encipherment" => 3,
        "key agreement" => 4,
        "cert sign" => 5,
        "crl sign" => 6,
        "encipher only" => 7,
        "decipher only" => 8,
        _ => return None,
    })
}

fn extended(name: &str) -> Option<&'static [u64]> {
    Some(match name {
        "any" => &[2, 5, 29, 37, 0],
        "server auth" => &[1, 3, 6, 1, 5, 5, 7, 3, 1],
        "client auth" => &[1, 3, 6, 1, 5, 5, 7, 3, 2],
        "code signing" => &[1, 3, 6, 1, 5, 5, 7, 3, 3],
        "email protection" | "s/mime" => &[1, 3, 6, 1, 5, 5, 7, 3, 4],
        "ipsec end system" => &[1, 3, 6, 1, 5, 5, 7, 3, 5],
        "ipsec tunnel" => &[1, 3, 6, 1, 5, 5, 7, 3, 6],
        "ipsec user" => &[1, 3, 6, 1, 5, 5, 7, 3, 7],
        "timestamping" => &[1, 3, 6, 1, 5, 5, 7, 3, 8],
        "ocsp signing" => &[1, 3, 6, 1, 5, 5, 7, 3, 9],
        "microsoft sgc" => &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3],
        "netscape sgc" => &[2, 16, 840, 1, 113_730, 4, 1],
        _ => return None,
    })
}
