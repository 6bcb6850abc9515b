//! Health, as load balancers see it.

use crate::app::TestApp;
use crate::wait::eventually;

#[tokio::test]
async fn a_dispatcher_on_real_parts_is_healthy_and_drains() {
    let mut test = TestApp::start().await;
    let health = |url: String, http: reqwest::Client| async move {
        let answer = http.get(format!("{url}/health")).send().await.unwrap();
        answer.json::<serde_json::Value>().await.unwrap()
    };
    eventually("all parts answer", || async {
        let body = health(test.dispatcher.url.clone(), test.http.clone()).await;
        (body["status"] == "ok").then_some(())
    })
    .await;
    let second = test.second_dispatcher().await;
    let body = health(second.url.clone(), test.http.clone()).await;
    assert_eq!(body["checks"]["postgres"], "ok");
    second.stop().await;
    test.s3.kill().await;
    let body = health(test.dispatcher.url.clone(), test.http.clone()).await;
    assert_eq!(body["status"], "degraded");
    assert_eq!(body["checks"]["s3"], "down");
}
