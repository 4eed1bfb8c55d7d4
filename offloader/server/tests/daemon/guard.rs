//! Who may come in.

use conclave_proto::v1;

use crate::house::{House, TOKEN, client, record};

#[tokio::test]
async fn nobody_without_the_token_gets_anything() {
    let house = House::new().await;
    for token in ["", "wrong", "test-service-token-012345678", "test-service-token-01234567890"] {
        let status = client(&house.url(), token).await.list(v1::ListJobsRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
        let answer = house
            .http
            .get(format!("{}/archive/v1/recordings", house.url()))
            .bearer_auth(token)
            .header("x-conclave-actor", "u")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 401);
        let body: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "unauthenticated");
    }
    let metrics = house.http.get(format!("{}/metrics", house.url())).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("offloader_requests_refused_total 8"), "{metrics}");
}

#[tokio::test]
async fn archive_wants_to_know_who_asks() {
    let house = House::new().await;
    let answer = house.http.get(format!("{}/archive/v1/recordings", house.url())).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "actor_missing");
}

#[tokio::test]
async fn workers_token_reaches_its_own_job_only() {
    let house = House::with(|settings| settings.worker_bin = "/bin/false".into()).await;
    let mut service = house.client().await;
    let other = service.submit(record("other", "t")).await.unwrap().into_inner();
    let token = house.daemon.as_ref().unwrap().app.tokens.for_worker("job-x", 1);
    let mut worker = client(&house.url(), &token).await;
    let denied = |status: tonic::Status| assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
    denied(worker.get(v1::GetJobRequest { id: other.id.clone() }).await.unwrap_err());
    denied(worker.renew(v1::RenewRequest { id: other.id.clone(), fence: 1, ..v1::RenewRequest::default() }).await.unwrap_err());
    denied(
        worker.finish(v1::FinishRequest { id: other.id.clone(), fence: 1, ok: true, ..v1::FinishRequest::default() }).await.unwrap_err(),
    );
    denied(worker.submit(record("c", "t")).await.unwrap_err());
    denied(worker.stop(v1::StopRequest { id: other.id.clone(), reason: String::new() }).await.unwrap_err());
    denied(worker.list(v1::ListJobsRequest::default()).await.unwrap_err());
    denied(worker.lease(v1::LeaseRequest { worker: "w".into(), ..v1::LeaseRequest::default() }).await.unwrap_err());
    denied(worker.watch(v1::WatchJobsRequest::default()).await.map(|_| ()).unwrap_err());
    let answer = house
        .http
        .get(format!("{}/archive/v1/recordings", house.url()))
        .bearer_auth(&token)
        .header("x-conclave-actor", "u")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 403);
}

#[tokio::test]
async fn senseless_requests_are_told_what_is_wrong() {
    let house = House::new().await;
    let mut client = house.client().await;
    let good = record("c", "t");
    let cases = [
        v1::SubmitRequest { kind: 0, ..good.clone() },
        v1::SubmitRequest { kind: 99, ..good.clone() },
        v1::SubmitRequest { idempotency_key: String::new(), ..good.clone() },
        v1::SubmitRequest { call_id: String::new(), ..good.clone() },
        v1::SubmitRequest { call_id: "x".repeat(300), ..good.clone() },
        v1::SubmitRequest { params_json: "{".into(), ..good.clone() },
        v1::SubmitRequest { params_json: format!("{{\"title\":\"{}\"}}", "x".repeat(300_000)), ..good.clone() },
    ];
    for case in cases {
        let status = client.submit(case).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    }
    let derived = v1::SubmitRequest { kind: v1::JobKind::Render.into(), recording_id: "rec-nowhere".into(), ..good };
    assert_eq!(client.submit(derived).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    assert_eq!(client.get(v1::GetJobRequest { id: "job-nowhere".into() }).await.unwrap_err().code(), tonic::Code::NotFound);
    assert_eq!(house.get("/recordings/rec-nowhere").send().await.unwrap().status(), 404);
    assert_eq!(house.get("/recordings?cursor=%FF").send().await.unwrap().status(), 400);
    assert_eq!(house.get("/recordings/..%2F..%2Fetc%2Fpasswd/media").send().await.unwrap().status(), 404);
}
