//! The multipart form of a file upload, streamed, with its length known in advance (providers.md, section 1.2).

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use crate::body::Body;
use crate::upstream::files::Upload;
use crate::upstream::provider::InputFile;

/// A form: its body, its exact length, and the value of `content-type`.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) body: Body,
    pub(crate) length: u64,
    pub(crate) content_type: String,
}

/// The form for `POST /files`. `boundary` must not occur in the file; random hex is enough.
pub(crate) fn upload_form(file: InputFile, upload: Upload, expires_after_seconds: Option<u32>, boundary: &str) -> Form {
    let mut head = String::with_capacity(512);
    push_field(&mut head, boundary, "purpose", upload.purpose);
    if upload.names_file {
        push_field(&mut head, boundary, "file_name", &file.name);
    }
    if let Some(seconds) = expires_after_seconds {
        push_field(&mut head, boundary, "expires_after[anchor]", "created_at");
        push_field(&mut head, boundary, "expires_after[seconds]", &seconds.to_string());
    }
    head.push_str(&format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{}\"\r\ncontent-type: {}\r\n\r\n",
        file.name, upload.file_type
    ));
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = file.length + as_u64(head.len()) + as_u64(tail.len());
    let frame = |text: String| futures_util::stream::once(async move { Ok(Frame::data(Bytes::from(text))) });
    let content = http_body_util::BodyStream::new(file.content);
    let stream = frame(head).chain(content).chain(frame(tail));
    Form {
        body: StreamBody::new(stream).boxed_unsync(),
        length,
        content_type: format!("multipart/form-data; boundary={boundary}"),
    }
}

fn push_field(form: &mut String, boundary: &str, name: &str, value: &str) {
    form.push_str(&format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"));
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_implementation_reads_what_is_written_and_the_length_is_exact() {
        let content = "{\"a\":1}\n{\"b\":2}\n";
        let file =
            InputFile { name: "bat_1.jsonl".into(), length: content.len() as u64, content: crate::body::full(content) };
        let form = upload_form(file, Upload::OPENAI, Some(3600), "b0undary");
        let bytes = form.body.collect().await.unwrap().to_bytes();
        assert_eq!(bytes.len() as u64, form.length);
        let stream = futures_util::stream::once(async move { Ok::<_, std::io::Error>(bytes) });
        let mut parsed = multer::Multipart::new(stream, "b0undary");
        let mut fields = Vec::new();
        while let Some(field) = parsed.next_field().await.unwrap() {
            let name = field.name().unwrap().to_owned();
            let file_name = field.file_name().map(ToOwned::to_owned);
            fields.push((name, file_name, field.text().await.unwrap()));
        }
        let expected = [
            ("purpose", None, "batch"),
            ("expires_after[anchor]", None, "created_at"),
            ("expires_after[seconds]", None, "3600"),
            ("file", Some("bat_1.jsonl"), content),
        ];
        let expected: Vec<_> =
            expected.map(|(name, file, text)| (name.to_owned(), file.map(ToOwned::to_owned), text.to_owned())).into();
        assert_eq!(fields, expected);
    }
}
