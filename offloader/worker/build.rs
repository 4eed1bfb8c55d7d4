//! Leads some of whisper.cpp's functions through ours (offloader/kernels, docs/decisions/0028).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in std::env::var("DEP_SPEECH_KERNELS_LINK").unwrap_or_default().split_whitespace() {
        println!("cargo::rustc-link-arg={argument}");
    }
}
