//! What is to be seen in a rendered file, by the ffmpeg program. Files are 1280 by 720.

use std::path::Path;
use std::process::Command;

/// One picture of a file, RGB.
pub struct Still(Vec<u8>);

/// The picture at a second.
pub fn still(file: &Path, second: f32) -> Still {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-ss", &second.to_string(), "-i"])
        .arg(file)
        .args(["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        .output()
        .expect("the ffmpeg program (./x installs it)");
    assert_eq!(out.stdout.len(), 1_280 * 720 * 3, "{}", String::from_utf8_lossy(&out.stderr));
    if let Some(keep) = std::env::var_os("KEEP_PICTURES") {
        let name = std::thread::current().name().unwrap_or("test").rsplit("::").next().unwrap_or_default().to_owned();
        let png = Path::new(&keep).join(format!("{name}-{second}-{}.png", file.parent().and_then(Path::file_name).unwrap().display()));
        let _ = Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-ss", &second.to_string(), "-i"])
            .arg(file)
            .args(["-frames:v", "1"])
            .arg(png)
            .status();
    }
    Still(out.stdout)
}

impl Still {
    /// One point.
    pub fn at(&self, x: usize, y: usize) -> [u8; 3] {
        self.0[(y * 1_280 + x) * 3..][..3].try_into().unwrap()
    }

    /// How many points of an area have about that colour.
    pub fn count(&self, x: std::ops::Range<usize>, y: std::ops::Range<usize>, colour: [u8; 3]) -> usize {
        let near = |point: [u8; 3]| point.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 40);
        y.flat_map(|y| x.clone().map(move |x| (x, y))).filter(|(x, y)| near(self.at(*x, *y))).count()
    }
}

/// A picture of one colour as a PNG.
pub fn portrait(colour: &str) -> Vec<u8> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", &format!("color={colour}:s=128x128"), "-frames:v", "1", "-f", "image2pipe"])
        .args(["-c:v", "png", "-"])
        .output()
        .expect("the ffmpeg program (./x installs it)");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// The file's sound at 16 kHz.
pub fn sound(file: &Path) -> Vec<f32> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(file)
        .args(["-f", "f32le", "-ac", "1", "-ar", "16000", "-"])
        .output()
        .expect("the ffmpeg program (./x installs it)");
    out.stdout.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}
