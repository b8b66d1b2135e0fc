//! Content: OpenAI's parts of a message as Anthropic's blocks (providers.md, section 3.1).

use serde::Serialize;
use serde_json::value::RawValue;

use super::Refused;
use super::fields::Fields;

/// A block of a Messages body.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block<'a> {
    Text {
        text: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    Image {
        source: Source,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    Document {
        source: Source,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    ToolUse {
        id: String,
        name: String,
        input: Box<RawValue>,
    },
    ToolResult {
        tool_use_id: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        content: Vec<Self>,
    },
}

/// Where an image or a document comes from.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Source {
    Base64 { media_type: String, data: String },
    Url { url: String },
}

impl Block<'_> {
    pub(super) const fn is_tool_result(&self) -> bool {
        matches!(self, Self::ToolResult { .. })
    }
}

/// Images that Messages take.
const IMAGES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// Whose content it is: not every role may hold every part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    User,
    Assistant,
    Tool,
    System,
}

/// The content of a message: a text, or parts. Empty texts are left out: Anthropic refuses them.
pub(super) fn blocks<'a>(content: Option<&'a RawValue>, at: &str, whose: Whose) -> Result<Vec<Block<'a>>, Refused> {
    let Some(raw) = content else { return Ok(Vec::new()) };
    if raw.get().starts_with('"') {
        let text = serde_json::from_str(raw.get()).map_err(|error| Refused::new(at, error.to_string()))?;
        return Ok(text_block(text, None).into_iter().collect());
    }
    let parts: Vec<&RawValue> =
        serde_json::from_str(raw.get()).map_err(|_neither| Refused::new(at, "expected a text or an array of parts"))?;
    let mut blocks = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        blocks.extend(block(part, format!("{at}[{index}]"), whose)?);
    }
    Ok(blocks)
}

fn text_block(text: String, cache_control: Option<&RawValue>) -> Option<Block<'_>> {
    (!text.is_empty()).then_some(Block::Text { text, cache_control })
}

fn block<'a>(part: &'a RawValue, at: String, whose: Whose) -> Result<Option<Block<'a>>, Refused> {
    let mut fields = Fields::parse(part, at)?;
    let kind = fields.required_text("type")?;
    // Anthropic's own extension of parts: marks the end of a prompt prefix that is kept.
    let cache_control = fields.take("cache_control");
    let block = match (kind.as_str(), whose) {
        ("text", _) => text_block(fields.required_text("text")?, cache_control),
        ("refusal", Whose::Assistant) => text_block(fields.required_text("refusal")?, cache_control),
        ("image_url", Whose::User | Whose::Tool) => Some(Block::Image { source: image(&mut fields)?, cache_control }),
        ("file", Whose::User | Whose::Tool) => Some(document(&mut fields, cache_control)?),
        (other, _) => {
            return Err(Refused::new(
                fields.path("type"),
                format!(
                    "{other:?} has no counterpart in Anthropic's Messages: leave the part out, or use another model"
                ),
            ));
        }
    };
    if kind == "text" {
        // Of answers that are sent back.
        fields.ignore(&["annotations"]);
    }
    fields.nothing_left(super::request::NO_COUNTERPART)?;
    Ok(block)
}

/// `detail` is a hint without a counterpart.
fn image(fields: &mut Fields<'_>) -> Result<Source, Refused> {
    let at = fields.path("image_url");
    let raw = fields.take("image_url").ok_or_else(|| Refused::new(at.clone(), "is required"))?;
    let mut image = Fields::parse(raw, at)?;
    image.ignore(&["detail"]);
    let at = image.path("url");
    let url = image.required_text("url")?;
    image.nothing_left(super::request::NO_COUNTERPART)?;
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(Source::Url { url });
    }
    match data_url(&url) {
        Some((media_type, data)) if IMAGES.contains(&media_type.as_str()) => {
            Ok(Source::Base64 { media_type, data: data.to_owned() })
        }
        Some((media_type, _)) => {
            Err(Refused::new(at, format!("{media_type:?}: Anthropic takes {}", IMAGES.join(", "))))
        }
        None => Err(Refused::new(at, "expected an https:// URL or data:image/…;base64,…")),
    }
}

fn document<'a>(fields: &mut Fields<'a>, cache_control: Option<&'a RawValue>) -> Result<Block<'a>, Refused> {
    const PDF: &str = "application/pdf";
    let at = fields.path("file");
    let raw = fields.take("file").ok_or_else(|| Refused::new(at.clone(), "is required"))?;
    let mut file = Fields::parse(raw, at)?;
    if file.take("file_id").is_some() {
        let message = "a file at OpenAI cannot be read by Anthropic: send file_data with data:application/pdf;base64,…";
        return Err(Refused::new(file.path("file_id"), message));
    }
    let title = file.text("filename")?;
    let data = file.required_text("file_data")?;
    file.nothing_left(super::request::NO_COUNTERPART)?;
    match data_url(&data) {
        Some((media_type, data)) if media_type == PDF => {
            Ok(Block::Document { source: Source::Base64 { media_type, data: data.to_owned() }, title, cache_control })
        }
        _ => Err(Refused::new(file.path("file_data"), "expected data:application/pdf;base64,…")),
    }
}

/// Media type and base64 text.
fn data_url(url: &str) -> Option<(String, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = head.strip_suffix(";base64")?.split(';').next()?;
    Some((media_type.to_ascii_lowercase(), data))
}
