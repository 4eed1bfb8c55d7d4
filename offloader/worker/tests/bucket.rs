//! Files on their way to a bucket: large ones in parts, and none to another host than the one that was named.
#![cfg(test)]

#[path = "../../../integration-tests/tests/egress_stage/s3.rs"]
mod s3;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{any, get};
use offload_worker::job::{JobAddress, Lease, Outcome};
use offload_worker::publish::bucket::run;
use offloader_jobs::egress::{EgressResult, Manifest, S3Bucket};
use offloader_jobs::order::UploadOrder;
use tokio::net::TcpListener;

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// The offloader as an upload sees it: one file, read in ranges. It renews no lease, which is borne for a while.
async fn offloader(file: Arc<Vec<u8>>) -> JobAddress {
    async fn media(State(file): State<Arc<Vec<u8>>>, headers: HeaderMap) -> (StatusCode, HeaderMap, Vec<u8>) {
        let range = headers[header::RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (from.parse::<usize>().unwrap(), to.parse::<usize>().unwrap().min(file.len() - 1));
        let mut answer = HeaderMap::new();
        answer.insert(header::CONTENT_RANGE, format!("bytes {from}-{to}/{}", file.len()).parse().unwrap());
        answer.insert(header::CONTENT_TYPE, "video/mp4".parse().unwrap());
        (StatusCode::PARTIAL_CONTENT, answer, file[from..=to].to_vec())
    }
    let url = serve(Router::new().route("/archive/v1/publication/media", get(media)).with_state(file)).await;
    JobAddress { url, token: "t".into(), id: "job-1".into(), fence: 1 }
}

fn order(endpoint: &str, bucket: &str) -> UploadOrder {
    let bucket = S3Bucket {
        endpoint: endpoint.into(),
        region: "eu-west-1".into(),
        bucket: bucket.into(),
        path_style: true,
        access_key: s3::ACCESS_KEY.into(),
        secret: s3::SECRET.into(),
        content_disposition: "attachment".into(),
        tagging: "case=A%2F7&kept=10+years".into(),
        ..S3Bucket::default()
    };
    let manifest = Manifest { egress_id: "EG_1".into(), started_at: 1, ..Manifest::default() };
    UploadOrder { recording_id: "rec-1".into(), bucket, key: "a/b.mp4".into(), manifest: Some(("a/EG_1.json".into(), manifest)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_goes_in_parts_and_comes_out_whole() {
    let file: Arc<Vec<u8>> = Arc::new((0..40_000_000_u32).map(|n| (n / 251) as u8 ^ n as u8).collect());
    let s3 = s3::S3::start().await;
    let address = offloader(file.clone()).await;
    let lease = Lease::keep(address.clone()).unwrap();
    let outcome = run(&address, order(&s3.url, "days"), &lease).await;
    let Outcome::Done(result) = outcome else { panic!("{outcome:?}") };
    let delivered = serde_json::from_str::<EgressResult>(&result).unwrap().delivered.unwrap();
    assert_eq!((delivered.bytes, &delivered.location), (40_000_000, &format!("{}/days/a/b.mp4", s3.url)));
    let bucket = s3.bucket.lock().unwrap();
    let object = &bucket.objects["/days/a/b.mp4"];
    assert!(object.bytes == *file && object.content_type == "video/mp4");
    assert_eq!(object.tagging, "case=A%2F7&kept=10+years");
    assert_eq!(delivered.manifest, format!("{}/days/a/EG_1.json", s3.url));
    let manifest = &bucket.objects["/days/a/EG_1.json"];
    let told: Manifest = serde_json::from_slice(&manifest.bytes).unwrap();
    assert_eq!((told.files[0].location.as_str(), manifest.content_type.as_str()), (&*delivered.location, "application/json"));
    assert!(told.ended_at > 1_700_000_000_000_000_000);
    let parts = bucket.asked.iter().filter(|asked| asked.contains("partNumber=")).count();
    assert_eq!(parts, 3, "{:?}", bucket.asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_there_fails_at_once_and_no_other_host_is_followed() {
    let address = offloader(Arc::new(vec![7; 1_000])).await;
    let lease = Lease::keep(address.clone()).unwrap();
    let failed = |outcome: Outcome| {
        let Outcome::Failed { error, retry: false } = outcome else { panic!("{outcome:?}") };
        assert!(error.contains("in the archive") && !error.contains(s3::SECRET), "{error}");
    };
    let s3 = s3::S3::start().await;
    failed(run(&address, order(&s3.url, "no-such-bucket"), &lease).await);
    assert_eq!(s3.bucket.lock().unwrap().asked.len(), 1);

    let elsewhere = s3::S3::start().await;
    let to = format!("{}/days/a/b.mp4", elsewhere.url);
    let moved = move || async move { (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to.clone())]) };
    let here = serve(Router::new().fallback(any(moved))).await;
    // It is tried again for a while: what is asked here is only that nothing is sent elsewhere.
    let sending = run(&address, order(&here, "days"), &lease);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), sending).await;
    assert_eq!(elsewhere.bucket.lock().unwrap().asked, [""; 0]);
}
