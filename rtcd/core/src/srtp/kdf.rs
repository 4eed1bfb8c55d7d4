//! Session keys from master keys: the AES-CM pseudo-random function of RFC 3711 §4.3.3 with a key derivation rate of zero.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

use super::profile::{MasterKeys, SrtpError};

/// What a derived key is for (RFC 3711 §4.3.1 and §4.3.2).
#[derive(Clone, Copy)]
pub(super) enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// The first `N` bytes of the key stream for `label`.
pub(super) fn derive<const N: usize>(master: &MasterKeys, label: Label) -> Result<Zeroizing<[u8; N]>, SrtpError> {
    let algorithm = if master.key().len() == 32 { &AES_256 } else { &AES_128 };
    let key = UnboundCipherKey::new(algorithm, master.key()).map_err(|_| SrtpError::Keys)?;
    let prf = EncryptingKey::ctr(key).map_err(|_| SrtpError::Keys)?;
    // x = (label ‖ r) XOR salt with r = 0: the label lands on byte 7 of the 14; two zero bytes of block counter follow.
    let mut iv = [0u8; 16];
    for (place, salt) in iv.iter_mut().zip(master.salt_padded()) {
        *place = *salt;
    }
    if let Some(place) = iv.get_mut(7) {
        *place ^= label as u8;
    }
    let mut out = Zeroizing::new([0u8; N]);
    prf.less_safe_encrypt(out.as_mut_slice(), EncryptionContext::Iv128(FixedLength::from(iv))).map_err(|_| SrtpError::Keys)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::profile::Profile;
    use super::super::vectors::hex;
    use super::*;

    /// RFC 3711 appendix B.3.
    #[test]
    fn rfc3711_b3_key_derivation() {
        let master =
            MasterKeys::new(Profile::AesCm128HmacSha1_80, &hex("E1F97A0D3E018BE0D64FA32C06DE4139"), &hex("0EC675AD498AFEEBB6960B3AABE6"))
                .unwrap();
        assert_eq!(derive::<16>(&master, Label::RtpEncryption).unwrap().to_vec(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(derive::<14>(&master, Label::RtpSalt).unwrap().to_vec(), hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(
            derive::<94>(&master, Label::RtpAuthentication).unwrap().to_vec(),
            hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCEE049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC256D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2DC68")
                .get(..94)
                .unwrap()
                .to_vec()
        );
    }
}
