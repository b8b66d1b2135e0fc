//! Files: the form, the object, paging, deletion, content.

use http::Method;
use serde_json::{Value, json};

use super::client::{Api, FORM, form};

async fn upload(api: &Api, form: Vec<u8>) -> super::client::Reply {
    api.send(Method::POST, "/v1/files", FORM, form).await.unwrap()
}

#[tokio::test]
async fn content_is_byte_identical_and_the_object_is_exact() {
    let api = Api::quick().await;
    // Everything that a careless form parser trips over: boundaries in part, bare CR and LF, zero bytes.
    let mut content: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    content.extend_from_slice(b"\r\n--XbY\r\n--Xb\r\n\r\n");
    let file = api.upload(&content).await.json();
    assert_eq!(file["bytes"], content.len());
    assert_eq!(
        (&file["object"], &file["purpose"], &file["filename"]),
        (&json!("file"), &json!("batch"), &json!("in.jsonl"))
    );
    assert_eq!(file["expires_at"].as_i64().unwrap() - file["created_at"].as_i64().unwrap(), 30 * 86_400);
    assert!(file["id"].as_str().unwrap().starts_with("file-"));
    let reply = api.content(&file["id"]).await;
    assert_eq!(reply.headers["content-length"], content.len().to_string());
    assert!(reply.body == content);
    assert_eq!(api.get(&format!("/v1/files/{}", file["id"].as_str().unwrap())).await.json(), file);
}

#[tokio::test]
async fn form_may_come_in_any_order_and_spelling() {
    let api = Api::quick().await;
    for (anchor, seconds) in
        [("expires_after[anchor]", "expires_after[seconds]"), ("expires_after.anchor", "expires_after.seconds")]
    {
        let texts = [(seconds, "3600"), ("purpose", "batch"), (anchor, "created_at")];
        let file = upload(&api, form(&texts, "a.jsonl", b"{}")).await.json();
        assert_eq!(file["expires_at"].as_i64().unwrap() - file["created_at"].as_i64().unwrap(), 3600);
    }
    let file_first = b"--XbX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f.jsonl\"\r\n\r\nabc\r\n\
        --XbX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--XbX--\r\n";
    assert_eq!(upload(&api, file_first.to_vec()).await.json()["bytes"], 3);
    let other = upload(&api, form(&[("purpose", "user_data")], "a.txt", b"x")).await.json();
    assert!(other["expires_at"].is_null(), "only files for batches expire by themselves");
}

#[tokio::test]
async fn bad_forms_are_refused() {
    let api = Api::quick().await;
    type Texts<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Texts<'_>, &str, &str); 7] = [
        (&[], "a.jsonl", "purpose"),
        (&[("purpose", "fun")], "a.jsonl", "purpose"),
        (&[("purpose", "batch")], "a.csv", "file"),
        (&[("purpose", "batch"), ("expires_after[anchor]", "created_at")], "a.jsonl", "expires_after.seconds"),
        (&[("purpose", "batch"), ("expires_after[seconds]", "3600")], "a.jsonl", "expires_after.anchor"),
        (
            &[("purpose", "batch"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3599")],
            "a.jsonl",
            "expires_after.seconds",
        ),
        (&[("purpose", "batch"), ("color", "red")], "a.jsonl", "color"),
    ];
    for (texts, filename, param) in cases {
        let reply = upload(&api, form(texts, filename, b"{}")).await;
        assert_eq!((reply.status.as_u16(), &reply.error()["param"]), (400, &json!(param)), "{texts:?}");
    }
    let no_file = b"--XbX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--XbX--\r\n";
    assert_eq!(upload(&api, no_file.to_vec()).await.error()["param"], "file");
    let cut = form(&[("purpose", "batch")], "a.jsonl", b"{}");
    assert_eq!(upload(&api, cut[..cut.len() - 12].to_vec()).await.status, 400);
    assert_eq!(api.post("/v1/files", &json!({})).await.status, 400);
    assert_eq!(api.sim.counters()["files"], 0);
}

#[tokio::test]
async fn list_is_paged_filtered_and_of_one_key() {
    let api = Api::quick().await;
    let mut ids: Vec<Value> = Vec::new();
    for at in 0..4 {
        let purpose = if at == 2 { "evals" } else { "batch" };
        ids.insert(0, upload(&api, form(&[("purpose", purpose)], "a.jsonl", b"{}")).await.json()["id"].take());
    }
    let listed =
        |page: &Value| page["data"].as_array().unwrap().iter().map(|file| file["id"].clone()).collect::<Vec<_>>();
    let page = api.get("/v1/files?limit=3").await.json();
    assert_eq!(listed(&page), ids[..3]);
    assert_eq!((&page["has_more"], &page["first_id"], &page["last_id"]), (&json!(true), &ids[0], &ids[2]));
    let page = api.get(&format!("/v1/files?after={}", ids[2].as_str().unwrap())).await.json();
    assert_eq!((listed(&page), &page["has_more"]), (ids[3..].to_vec(), &json!(false)));
    let page = api.get("/v1/files?order=asc&limit=1").await.json();
    assert_eq!(listed(&page), ids[3..]);
    assert_eq!(listed(&api.get("/v1/files?purpose=evals").await.json()), [ids[1].clone()]);
    assert!(listed(&api.as_key("sk-other").get("/v1/files").await.json()).is_empty());
    for bad in ["limit=0", "limit=10001", "order=up"] {
        assert_eq!(api.get(&format!("/v1/files?{bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn deleted_files_are_gone() {
    let api = Api::quick().await;
    let id = api.upload(b"{}").await.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/files/{id}");
    assert_eq!(api.as_key("sk-other").delete(&path).await.status, 404);
    assert_eq!(api.delete(&path).await.json(), json!({"id": id, "object": "file", "deleted": true}));
    for reply in [api.get(&path).await, api.get(&format!("{path}/content")).await, api.delete(&path).await] {
        assert_eq!(reply.status, 404);
        let error = reply.error();
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(error["message"], format!("No such File object: {id}"));
    }
}

#[tokio::test]
async fn large_files_come_back_whole() {
    let api = Api::quick().await;
    let content = vec![b'x'; 40_000_000];
    let file = api.upload(&content).await.json();
    assert!(api.content(&file["id"]).await.body == content);
}
