//! Mail: a message in RFC 5322's form with a text and an HTML part.
//!
//! What always holds: the same message of the notifier is the same mail byte for byte, with the same `Message-ID`, so that a
//! repeat of it is recognised; what an alert holds adds no header, no part and no markup: control characters are replaced
//! before the templates see them, HTML is escaped, and both parts are quoted-printable, in which no boundary can stand.

use std::time::{Duration, UNIX_EPOCH};

use lettre::Message as Mail;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Body, MultiPart, SinglePart};
use sha2::{Digest, Sha256};

use super::alertmanager::Message;
use super::template::{self, Form};
use crate::limits::MAIL_SUBJECT_BYTES_MAX;
use crate::notify::Notification;
use crate::notify::config::Email;
use crate::sign::short_hex;
use crate::template::cut;

/// The subject of a mail when the receiver names none.
pub(crate) const SUBJECT_DEFAULT: &str = "{{ title }}";
/// The text of a mail when the receiver names none.
pub(crate) const TEXT_DEFAULT: &str = include_str!("../../templates/mail.txt");
/// The HTML of a mail when the receiver names none.
pub(crate) const HTML_DEFAULT: &str = include_str!("../../templates/mail.html");

/// Why there is no mail.
pub(super) enum MailError {
    /// A template failed, in a line, in a way.
    Template(usize, String),
    /// It has no writing.
    Writing,
}

/// The mail of a message.
pub(super) fn mail(
    email: &Email,
    message: &Message,
    notification: &Notification,
) -> Result<Vec<u8>, MailError> {
    let render = |source: &str, form| {
        template::render(source, form, message, notification)
            .map_err(|(line, kind)| MailError::Template(line, kind))
    };
    let subject: String = render(&email.subject, Form::Text)?
        .chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c })
        .collect();
    let subject = cut(subject.trim().to_owned(), MAIL_SUBJECT_BYTES_MAX);
    let text = render(&email.text, Form::Text)?;
    let html = render(&email.html, Form::Html)?;

    let domain = email.from.email.domain();
    let group = short_hex(&Sha256::digest(notification.group_key.as_bytes()));
    let seconds = u64::try_from(notification.at.as_second()).unwrap_or(0);
    let mut mail = Mail::builder()
        .from(email.from.clone())
        .subject(subject)
        .date(UNIX_EPOCH + Duration::from_secs(seconds))
        .message_id(Some(format!("<{}@{domain}>", notification.id)))
        // The mails of a group are one thread.
        .references(format!("<group_{group}@{domain}>"))
        // Nobody's absence is answered to (RFC 3834).
        .raw_header(header("Auto-Submitted", "auto-generated"))
        .raw_header(header("X-Beeacon-Message", &notification.id));
    for to in &email.to {
        mail = mail.to(to.clone());
    }
    let parts = MultiPart::alternative()
        .boundary(format!("=_{}", notification.id))
        .singlepart(part(ContentType::TEXT_PLAIN, text)?)
        .singlepart(part(ContentType::TEXT_HTML, html)?);
    Ok(mail.multipart(parts).map_err(|_| MailError::Writing)?.formatted())
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

fn part(kind: ContentType, text: String) -> Result<SinglePart, MailError> {
    let body = Body::new_with_encoding(text, ContentTransferEncoding::QuotedPrintable)
        .map_err(|_| MailError::Writing)?;
    Ok(SinglePart::builder().header(kind).body(body))
}
