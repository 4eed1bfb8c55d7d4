//! An S3 server of one bucket, as far as uploads need it: signatures are checked, objects kept, faults are made on demand.

#![allow(dead_code, unreachable_pub, reason = "shared by several tests, each of which uses its part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::{digest, hmac};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub const ACCESS_KEY: &str = "AKIDEGRESS";
pub const SECRET: &str = "an integration test's secret of S3";

/// What lies in it, and what it was asked.
#[derive(Default)]
pub struct Bucket {
    /// By path.
    pub objects: BTreeMap<String, Object>,
    /// Parts of uploads, by path and number.
    parts: BTreeMap<(String, u32), Vec<u8>>,
    /// Requests that are answered with an error of the server's first.
    pub faults: usize,
    /// Method and path with its query of each request, in order.
    pub asked: Vec<String>,
}

/// An object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub bytes: Vec<u8>,
    pub content_type: String,
    pub metadata: BTreeMap<String, String>,
    /// As the header has them.
    pub tagging: String,
}

/// The server.
pub struct S3 {
    pub url: String,
    pub bucket: Arc<Mutex<Bucket>>,
}

struct Request {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl S3 {
    /// Serves a bucket called `days`.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bucket = Arc::new(Mutex::new(Bucket::default()));
        let shared = bucket.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { url, bucket }
    }
}

async fn serve(mut stream: TcpStream, bucket: Arc<Mutex<Bucket>>) {
    let mut bytes = Vec::new();
    while let Some(request) = read(&mut stream, &mut bytes).await {
        let (status, head, body) = answer(&request, &mut bucket.lock().unwrap());
        let head = format!("HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let mut lines = head.lines();
            let mut words = lines.next()?.split(' ');
            let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
            let pairs = lines.filter_map(|line| line.split_once(':'));
            let headers: BTreeMap<_, _> = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
            let length = headers.get("content-length").map_or(0, |length| length.parse::<usize>().unwrap());
            if bytes.len() >= end + 4 + length {
                let body = bytes.drain(..end + 4 + length).skip(end + 4).collect();
                let (path, query) = target.split_once('?').unwrap_or((&target, ""));
                let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
                let query =
                    query.split('&').filter(|pair| !pair.is_empty()).map(|text| pair(text).unwrap_or((text.to_owned(), String::new())));
                return Some(Request { method, path: path.to_owned(), query: query.collect(), headers, body });
            }
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn answer(request: &Request, bucket: &mut Bucket) -> (&'static str, String, String) {
    let (method, path) = (request.method.as_str(), request.path.clone());
    let query: Vec<String> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    bucket.asked.push(format!("{method} {path}?{}", query.join("&")));
    let error = |code: &str| format!("<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>");
    if !is_signed(request) {
        return ("403 Forbidden", String::new(), error("SignatureDoesNotMatch"));
    }
    if bucket.faults > 0 {
        bucket.faults -= 1;
        return ("503 Service Unavailable", String::new(), error("SlowDown"));
    }
    if !path.starts_with("/days/") {
        return ("404 Not Found", String::new(), error("NoSuchBucket"));
    }
    let value = |name: &str| request.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let described = |bytes| Object {
        bytes,
        content_type: request.headers.get("content-type").cloned().unwrap_or_default(),
        tagging: request.headers.get("x-amz-tagging").cloned().unwrap_or_default(),
        metadata: request
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("x-amz-meta-")?.to_owned(), value.clone())))
            .collect(),
    };
    match (method, value("uploads"), value("partNumber"), value("uploadId")) {
        ("POST", Some(_), None, None) => {
            bucket.objects.insert(format!("begun:{path}"), described(Vec::new()));
            let body = "<InitiateMultipartUploadResult><UploadId>one</UploadId></InitiateMultipartUploadResult>".to_owned();
            ("200 OK", String::new(), body)
        }
        ("PUT", None, Some(number), Some("one")) => {
            bucket.parts.insert((path, number.parse().unwrap()), request.body.clone());
            ("200 OK", format!("ETag: \"part-{number}\"\r\n"), String::new())
        }
        ("POST", None, None, Some("one")) => {
            let parts = std::mem::take(&mut bucket.parts);
            let bytes = parts.into_iter().filter(|((of, _), _)| *of == path).flat_map(|(_, bytes)| bytes).collect();
            let begun = bucket.objects.remove(&format!("begun:{path}")).unwrap();
            bucket.objects.insert(path, Object { bytes, ..begun });
            let body = "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>".to_owned();
            ("200 OK", String::new(), body)
        }
        ("PUT", None, None, None) => {
            bucket.objects.insert(path, described(request.body.clone()));
            ("200 OK", "ETag: \"whole\"\r\n".to_owned(), String::new())
        }
        _ => ("400 Bad Request", String::new(), error("NotImplemented")),
    }
}

/// AWS's signature, version 4, made anew with our secret.
fn is_signed(request: &Request) -> bool {
    let Some(authorization) = request.headers.get("authorization") else { return false };
    let part = |name: &str| authorization.split([' ', ',']).find_map(|part| part.strip_prefix(name)).map(str::to_owned);
    let (Some(credential), Some(names), Some(signature)) = (part("Credential="), part("SignedHeaders="), part("Signature=")) else {
        return false;
    };
    let Some(scope) = credential.strip_prefix(&format!("{ACCESS_KEY}/")) else { return false };
    let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
    let mut query: Vec<String> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    query.sort();
    let headers: String = names.split(';').map(|name| format!("{name}:{}\n", header(name))).collect();
    let canonical =
        format!("{}\n{}\n{}\n{headers}\n{names}\n{}", request.method, request.path, query.join("&"), header("x-amz-content-sha256"));
    let sha256 = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", header("x-amz-date"), sha256(canonical.as_bytes()));
    let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
    let key = scope.split('/').fold(format!("AWS4{SECRET}").into_bytes(), |key, part| sign(&key, part));
    let body = header("x-amz-content-sha256");
    (body == "UNSIGNED-PAYLOAD" || body == sha256(&request.body)) && hex(&sign(&key, &to_sign)) == signature
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
