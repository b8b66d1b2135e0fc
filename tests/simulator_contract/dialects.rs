//! The other providers' dialects against their documentation (providers.md, section 4): what each refuses, and shows otherwise.

use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use super::client::{Api, FORM, POLL, Reply, form, quick};
use nightbus::sim::SimOptions;

const LINE: &[u8] = br#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":"hi"}]}}
"#;

async fn upload(api: &Api, path: &str, fields: &[(&str, &str)], content: &[u8]) -> Reply {
    api.send(Method::POST, path, FORM, form(fields, "in.jsonl", content)).await.unwrap()
}

/// The form with another content type of the file.
fn azures(fields: &[(&str, &str)], content: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(form(fields, "in.jsonl", content)).unwrap();
    text.replace("Content-Type: application/jsonl", "Content-Type: application/json").into_bytes()
}

async fn ended(api: &Api, path: &str, ends: &[&str]) -> Value {
    for _ in 0..2_000 {
        let batch = api.get(path).await.json();
        if ends.contains(&batch["status"].as_str().unwrap_or_default()) {
            return batch;
        }
        tokio::time::sleep(POLL).await;
    }
    panic!("{path} does not end");
}

#[tokio::test]
async fn azure_looks_at_files_first_and_never_expires() {
    let api = Api::start(SimOptions { batch_seconds: 0.5, faults: vec!["expire-half".into()], ..quick() }).await;
    let wrong = upload(&api, "/azure/openai/v1/files", &[("purpose", "batch")], LINE).await;
    assert_eq!((wrong.status.as_u16(), wrong.error()["param"].as_str()), (400, Some("file")), "its content type");
    let short = azures(
        &[("purpose", "batch"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3600")],
        LINE,
    );
    let short = api.send(Method::POST, "/azure/openai/v1/files", FORM, short).await.unwrap();
    assert_eq!(short.status, 400, "14 days at least");
    let file = api
        .send(Method::POST, "/azure/openai/v1/files", FORM, azures(&[("purpose", "batch")], LINE))
        .await
        .unwrap()
        .json();
    assert_eq!(file["status"], "pending");
    let order = json!({"input_file_id": file["id"], "endpoint": "/chat/completions", "completion_window": "24h"});
    let early = api.post("/azure/openai/v1/batches", &order).await.json();
    assert_eq!((early["status"].as_str(), &early["request_counts"]), (Some("Validating"), &Value::Null));
    assert!(early["created_at"].as_str().unwrap().ends_with('Z'), "{early}");
    let path = |batch: &Value| format!("/azure/openai/v1/batches/{}", batch["id"].as_str().unwrap());
    let failed = ended(&api, &path(&early), &["Failed", "Completed"]).await;
    assert_eq!(
        (&failed["status"], &failed["errors"]["data"][0]["code"]),
        (&json!("Failed"), &json!("invalid_request"))
    );
    let settled = api.get(&format!("/azure/openai/v1/files/{}", file["id"].as_str().unwrap())).await.json();
    assert_eq!(settled["status"], "processed");
    let batch = api.post("/azure/openai/v1/batches", &order).await.json();
    let batch = ended(&api, &path(&batch), &["Completed", "Expired"]).await;
    assert_eq!((&batch["status"], &batch["expires_at"]), (&json!("Completed"), &Value::Null));
    let errors = batch["error_file_id"].as_str().expect("an error file without errors");
    assert!(api.get(&format!("/azure/openai/v1/files/{errors}/content")).await.body.is_empty());
}

#[tokio::test]
async fn azures_older_form_needs_a_version_and_its_key_has_a_header_of_its_own() {
    let api = Api::quick().await;
    assert_eq!(api.get("/azure/openai/batches").await.status, 404);
    assert_eq!(api.get("/azure/openai/batches?api-version=2025-04-01-preview").await.status, 200);
    let call = |header: &str| {
        let uri = format!("http://{}/azure/openai/v1/batches", api.sim.addr());
        Request::get(uri).header(header, "az").body(Full::default()).unwrap()
    };
    assert_eq!(api.send_request(call("api-key")).await.unwrap().status, 200);
    assert_eq!(api.send_request(call("x-api-key")).await.unwrap().status, 401);
}

#[tokio::test]
async fn who_does_not_document_an_expiry_of_files_refuses_one() {
    let api = Api::quick().await;
    let expiring = [("purpose", "batch"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "86400")];
    for base in ["/groq/openai/v1", "/dashscope/compatible-mode/v1", "/doubleword/v1", "/mistral/v1"] {
        let refused = upload(&api, &format!("{base}/files"), &expiring, LINE).await;
        assert_eq!(refused.error()["code"], "unknown_parameter", "{base}");
        let taken = upload(&api, &format!("{base}/files"), &expiring[..1], LINE).await.json();
        assert_eq!(api.get(&format!("/v1/files/{}", taken["id"].as_str().unwrap())).await.status, 404, "nobody else's");
    }
}

#[tokio::test]
async fn windows_are_the_providers_own() {
    let api = Api::quick().await;
    for (base, window, status) in [
        ("/groq/openai/v1", "7d", 200),
        ("/groq/openai/v1", "336h", 400),
        ("/dashscope/compatible-mode/v1", "336h", 200),
        ("/doubleword/v1", "1h", 200),
        ("/v1", "48h", 400),
    ] {
        let order = json!({"input_file_id": "file-x", "endpoint": "/v1/chat/completions", "completion_window": window});
        assert_eq!(api.post(&format!("{base}/batches"), &order).await.status, status, "{base} {window}");
    }
}

#[tokio::test]
async fn doubleword_shows_results_while_the_batch_runs() {
    let api = Api::start(SimOptions { batch_seconds: 0.2, faults: vec!["stuck-in-progress".into()], ..quick() }).await;
    let lines: String = (0..4).map(|at| String::from_utf8_lossy(LINE).replace("\"a\"", &format!("\"{at}\""))).collect();
    let file = upload(&api, "/doubleword/v1/files", &[("purpose", "batch")], lines.as_bytes()).await.json();
    let order = json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    let batch = api.post("/doubleword/v1/batches", &order).await.json();
    let path = format!("/doubleword/v1/batches/{}", batch["id"].as_str().unwrap());
    let output = loop {
        let batch = api.get(&path).await.json();
        if let Some(output) = batch["output_file_id"].as_str() {
            assert_eq!(batch["status"], "in_progress");
            break output.to_owned();
        }
        tokio::time::sleep(POLL).await;
    };
    let content = |offset: usize| format!("/doubleword/v1/files/{output}/content?offset={offset}");
    let part = api.get(&content(0)).await;
    let header = |name: &str| part.headers[name].to_str().unwrap().to_owned();
    assert_eq!((header("x-incomplete"), header("x-last-line")), ("true".to_owned(), "2".to_owned()));
    assert_eq!((part.body.split(|byte| *byte == b'\n').count(), api.get(&content(2)).await.body.len()), (3, 0));
    assert_eq!(api.post(&format!("{path}/cancel"), &json!({})).await.status, 200);
    ended(&api, &path, &["cancelled"]).await;
    assert_eq!(api.get(&content(0)).await.headers["x-incomplete"], "false");
}

#[tokio::test]
async fn mistrals_job_names_the_model_and_its_lines_name_nothing() {
    let api = Api::quick().await;
    let order = |file: &Value| {
        json!({"endpoint": "/v1/chat/completions", "model": "mistral-small-latest", "input_files": [file["id"]],
            "timeout_hours": 24, "metadata": {"k": "v"}})
    };
    let path = |job: &Value| format!("/mistral/v1/batch/jobs/{}", job["id"].as_str().unwrap());
    let files = "/mistral/v1/files";
    let openais = upload(&api, files, &[("purpose", "batch")], LINE).await.json();
    let job = api.post("/mistral/v1/batch/jobs", &order(&openais)).await.json();
    assert_eq!(
        (&job["status"], &job["object"], &job["metadata"]["k"]),
        (&json!("QUEUED"), &json!("batch"), &json!("v"))
    );
    assert_eq!(ended(&api, &path(&job), &["FAILED", "SUCCESS"]).await["status"], "FAILED", "lines with a method");
    let bare = br#"{"custom_id":"a","body":{"messages":[{"role":"user","content":"hi"}],"model":"ignored"}}"#;
    let bare = upload(&api, files, &[("purpose", "batch")], bare).await.json();
    let job = api.post("/mistral/v1/batch/jobs", &order(&bare)).await.json();
    let job = ended(&api, &path(&job), &["FAILED", "SUCCESS"]).await;
    assert_eq!((&job["status"], &job["succeeded_requests"]), (&json!("SUCCESS"), &json!(1)), "{job}");
    assert!(job["output_file"].is_string() && job["error_file"].is_null(), "{job}");
    assert_eq!(api.get("/mistral/v1/batches").await.status, 404);
    let without_model = json!({"endpoint": "/v1/chat/completions", "input_files": [bare["id"]]});
    assert_eq!(api.post("/mistral/v1/batch/jobs", &without_model).await.status, 400);
}

#[tokio::test]
async fn togethers_job_stands_in_its_creation_and_has_no_metadata() {
    let api = Api::quick().await;
    let fields = [("purpose", "batch-api"), ("file_name", "in.jsonl")];
    assert_eq!(upload(&api, "/together/v1/files", &fields, LINE).await.status, 404);
    assert_eq!(upload(&api, "/together/v1/files/upload", &fields[..1], LINE).await.status, 400);
    let file = upload(&api, "/together/v1/files/upload", &fields, LINE).await.json();
    let mut order = json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions"});
    let created = api.post("/together/v1/batches", &order).await.json();
    assert_eq!((&created["job"]["status"], &created["job"]["input_file_id"]), (&json!("VALIDATING"), &file["id"]));
    let path = format!("/together/v1/batches/{}", created["job"]["id"].as_str().unwrap());
    let job = ended(&api, &path, &["COMPLETED", "FAILED"]).await;
    assert_eq!(job["status"], "COMPLETED", "{job}");
    assert!(job.get("request_counts").is_none() && job["created_at"].is_string(), "{job}");
    assert_eq!(api.get("/together/v1/batches").await.json().as_array().unwrap().len(), 1);
    order["metadata"] = json!({});
    assert_eq!(api.post("/together/v1/batches", &order).await.status, 400);
}

#[tokio::test]
async fn gemini_has_no_files_lists_or_metadata_where_openai_has_them_and_another_header_beside_it() {
    let api = Api::quick().await;
    let base = "/gemini/v1beta/openai";
    for (method, path) in [
        (Method::GET, "/batches"),
        (Method::GET, "/files"),
        (Method::POST, "/files"),
        (Method::GET, "/batches/b"),
        (Method::POST, "/batches/batches/b/cancel"),
    ] {
        let reply = api.send(method.clone(), &format!("{base}{path}"), "application/json", "{}").await.unwrap();
        assert_eq!(reply.status, 404, "{method} {path}");
    }
    let order = |more: Value| {
        let mut order =
            json!({"input_file_id": "files/f", "endpoint": "/v1/chat/completions", "completion_window": "24h"});
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        order
    };
    assert_eq!(api.post(&format!("{base}/batches"), &order(json!({"metadata": {"a": "b"}}))).await.status, 400);
    assert_eq!(api.post(&format!("{base}/batches"), &order(json!({"input_file_id": "f"}))).await.status, 400);
    let created = api.post(&format!("{base}/batches"), &order(json!({}))).await.json();
    let name = created["id"].as_str().unwrap();
    assert!(name.starts_with("batches/") && created["input_file_id"] == "files/f", "{created}");
    assert_eq!(api.get(&format!("{base}/batches/{name}")).await.status, 200);
    assert_eq!(api.get("/gemini/v1beta/batches").await.status, 401, "a bearer is no key there");
    let request = Request::get(format!("http://{}/gemini/v1beta/batches", api.sim.addr()));
    let request = request.header("x-goog-api-key", "sk-test").body(Full::new(Vec::new().into())).unwrap();
    let listed = api.send_request(request).await.unwrap().json();
    assert_eq!(listed["operations"][0]["name"], name, "{listed}");
    assert_eq!(listed["operations"][0]["metadata"]["inputConfig"]["fileName"], "files/f", "{listed}");
}

#[tokio::test]
async fn xais_batches_have_a_name_and_no_status_and_are_cancelled_behind_a_colon() {
    let api = Api::quick().await;
    let file = upload(&api, "/xai/v1/files", &[("purpose", "batch")], LINE).await.json();
    let order = json!({"name": "bat_1", "input_file_id": file["id"]});
    let odd = json!({"name": "bat_1", "input_file_id": file["id"], "endpoint": "/v1/chat/completions"});
    assert_eq!(api.post("/xai/v1/batches", &odd).await.status, 400);
    let created = api.post("/xai/v1/batches", &order).await.json();
    assert_eq!((created.get("status"), &created["name"]), (None, &json!("bat_1")));
    assert_eq!(created["state"]["num_requests"], 0, "{created}");
    let path = format!("/xai/v1/batches/{}", created["batch_id"].as_str().unwrap());
    assert_eq!(api.post(&format!("{path}/cancel"), &json!({})).await.status, 404);
    assert_eq!(api.get("/xai/v1/batches").await.json()["batches"][0]["batch_id"], created["batch_id"]);
    let mut results = Value::Null;
    for _ in 0..2_000 {
        let state = api.get(&path).await.json()["state"].clone();
        if state["num_requests"] == 1 && state["num_pending"] == 0 {
            results = api.get(&format!("{path}/results?limit=100")).await.json();
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let first = &results["results"][0];
    assert_eq!((&first["batch_request_id"], &results["pagination_token"]), (&json!("a"), &Value::Null), "{results}");
    assert!(first["batch_result"]["response"]["chat_get_completion"]["choices"].is_array(), "{results}");
}
