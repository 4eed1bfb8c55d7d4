//! Which of whisper.cpp's functions are led here, for our own tests and (as DEP_SPEECH_KERNELS_LINK) for the program that links us.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut arguments = Vec::new();
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        for name in ["llamafile_sgemm", "ggml_mul_mat", "ggml_backend_init_by_type"] {
            // `-u`: ours is linked even where only C asks for it.
            arguments.push(format!("-Wl,--wrap={name},-u,__wrap_{name}"));
        }
    }
    for argument in &arguments {
        println!("cargo::rustc-link-arg={argument}");
    }
    println!("cargo::metadata=link={}", arguments.join(" "));
}
