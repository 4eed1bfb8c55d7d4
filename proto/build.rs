//! Compiles the `.proto` files without protoc, and keeps a descriptor set for reflection.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["conclave/v1/signal.proto", "conclave/v1/tap.proto", "conclave/v1/jobs.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("conclave.bin"), prost_encode(&descriptors))?;
    // A last diagnosis is rare and ten times as large as what else a call tells; every event would be as large.
    tonic_prost_build::configure()
        .skip_debug([".conclave.v1.TapMediaKey"])
        .bytes(".")
        .boxed(".conclave.v1.CallEvent.event.departed")
        .compile_fds(descriptors)?;
    Ok(())
}

fn prost_encode(set: &impl prost::Message) -> Vec<u8> {
    set.encode_to_vec()
}
