//! The one way in which we write a tar archive (POSIX ustar): fixed owner and mode, one time, zero padding.
//!
//! Because there is only one, a reader can say of every byte of the frame whether it is right.

/// Size of everything in a tar archive.
pub const BLOCK: usize = 512;
/// Zeros at the end.
pub const END_BYTES: usize = 2 * BLOCK;
/// Longest name in the plain header.
pub(super) const NAME_BYTES_MAX: usize = 100;

/// Header of a file.
pub fn header(name: &str, bytes: u64, mtime_s: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let length = name.len().min(NAME_BYTES_MAX);
    header[..length].copy_from_slice(&name.as_bytes()[..length]);
    octal(&mut header[100..108], 0o644);
    octal(&mut header[108..116], 0);
    octal(&mut header[116..124], 0);
    size(&mut header[124..136], bytes);
    octal(&mut header[136..148], mtime_s);
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut header[329..337], 0);
    octal(&mut header[337..345], 0);
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut header[148..155], sum);
    header
}

/// Zeros after a file of that length.
pub fn padding(bytes: u64) -> usize {
    (BLOCK - (bytes % BLOCK as u64) as usize) % BLOCK
}

/// Time in a header that looks like ours.
pub(super) fn mtime(header: &[u8; BLOCK]) -> Option<u64> {
    read_octal(&header[136..148])
}

/// Length in a header that looks like ours.
pub(super) fn bytes(header: &[u8; BLOCK]) -> Option<u64> {
    if header[124] == 0x80 {
        return Some(u64::from_be_bytes(header[128..136].try_into().ok()?));
    }
    read_octal(&header[124..136])
}

fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    field[..digits].copy_from_slice(&text.as_bytes()[text.len() - digits..]);
}

/// Octal up to 8 GiB, beyond that the base-256 form that GNU, BSD and libarchive read.
fn size(field: &mut [u8], value: u64) {
    if value < 1 << 33 {
        octal(field, value);
    } else {
        field[0] = 0x80;
        field[4..12].copy_from_slice(&value.to_be_bytes());
    }
}

fn read_octal(field: &[u8]) -> Option<u64> {
    let (end, digits) = field.split_last()?;
    let text = std::str::from_utf8(digits).ok()?;
    if *end == 0 { u64::from_str_radix(text, 8).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_and_time_read_back_at_both_sizes() {
        for length in [0, 1, 511, (1 << 33) - 1, 1 << 33, 1 << 40] {
            let header = header("a", length, 1_700_000_000);
            assert_eq!(bytes(&header), Some(length));
            assert_eq!(mtime(&header), Some(1_700_000_000));
        }
    }
}
