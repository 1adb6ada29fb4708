//! The YAML of receivers that are more than an address: mail, and an Alertmanager.

use std::time::Duration;

use lettre::message::Mailbox;

use super::read::check_url;
use super::{Alertmanager, Email, MailSecurity, ReceiverKind, Secret};
use crate::limits::{ALERTMANAGER_RESEND_DEFAULT, MAIL_RECIPIENTS_MAX};
use crate::payload::mail::{HTML_DEFAULT, SUBJECT_DEFAULT, TEXT_DEFAULT};
use crate::yaml::{Faults, Node, Place, Taker};

const EMAIL_KEYS: [&str; 9] =
    ["to", "from", "smarthost", "tls", "auth_username", "auth_password", "subject", "text", "html"];

pub(super) fn read_email(node: Node, faults: &mut Faults) -> Option<ReceiverKind> {
    let mut taker = Taker::new(node, "`email`", faults)?;
    let place = taker.place;
    let to = taker.texts("to", faults);
    let from = taker.text("from", faults);
    let smarthost = taker.text("smarthost", faults);
    let tls = taker.text("tls", faults);
    let user = taker.text("auth_username", faults).map(|(_, user)| user);
    let password = taker.text("auth_password", faults).map(|(_, password)| Secret::new(password));
    let subject = template(&mut taker, "subject", SUBJECT_DEFAULT, faults);
    let text = template(&mut taker, "text", TEXT_DEFAULT, faults);
    let html = template(&mut taker, "html", HTML_DEFAULT, faults);
    taker.finish(&EMAIL_KEYS, faults);

    let to: Vec<Mailbox> = match to {
        Some(to) => to.into_iter().filter_map(|(place, text)| mailbox(place, "to", &text, faults)).collect(),
        None => {
            faults.add(place, "`to` is missing: a list of addresses");
            return None;
        }
    };
    if to.len() > MAIL_RECIPIENTS_MAX {
        faults.add(place, format!("`to` has {} addresses, the limit is {MAIL_RECIPIENTS_MAX}", to.len()));
    }
    let from = match from {
        Some((place, text)) => mailbox(place, "from", &text, faults),
        None => {
            faults.add(place, "`from` is missing: the address of the sender");
            None
        }
    };
    let Some((host_place, smarthost)) = smarthost else {
        faults.add(
            place,
            "`smarthost` is missing: host and port of the mail server, as \"smtp.example.org:587\"",
        );
        return None;
    };
    let Some((host, port)) = host_and_port(&smarthost) else {
        faults
            .add(host_place, "`smarthost` is a host and a port, as \"smtp.example.org:587\" or \"[::1]:25\"");
        return None;
    };
    let security = match tls.as_ref().map(|(_, word)| word.as_str()) {
        None if port == 465 => MailSecurity::Tls,
        None | Some("starttls") => MailSecurity::StartTls,
        Some("tls") => MailSecurity::Tls,
        Some("none") => MailSecurity::None,
        Some(_) => {
            faults.add(tls.map_or(place, |(place, _)| place), "`tls` is starttls, tls or none");
            return None;
        }
    };
    if security == MailSecurity::None && !is_this_host(&host) {
        faults.add(
            host_place,
            "`tls: none` is for a mail server on this host: localhost or a loopback address",
        );
    }
    if user.is_some() != password.is_some() {
        faults.add(place, "`auth_username` and `auth_password` go together");
    }
    if to.is_empty() {
        faults.add(place, "`to` names nobody");
    }
    Some(ReceiverKind::Email(Box::new(Email {
        to,
        from: from?,
        host,
        port,
        security,
        login: user.zip(password),
        subject,
        text,
        html,
    })))
}

fn template(taker: &mut Taker, key: &'static str, default: &str, faults: &mut Faults) -> String {
    let Some((place, template)) = taker.text(key, faults) else { return default.to_owned() };
    if let Err(error) = crate::payload::template::check(&template) {
        faults.add(place, format!("`{key}`: {error}"));
    }
    template
}

fn mailbox(place: Place, key: &str, text: &str, faults: &mut Faults) -> Option<Mailbox> {
    let mailbox = text.parse();
    // A control character in an address would be one in a header.
    if mailbox.is_err() || text.chars().any(char::is_control) {
        faults.add(
            place,
            format!("`{key}` has an address that is none: write name@example.org or Name <name@example.org>"),
        );
        return None;
    }
    mailbox.ok()
}

/// A host as URLs write it, and a port.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_name = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_address = inside.is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok());
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (is_name || is_address).then(|| (host.to_owned(), port))
}

fn is_this_host(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn read_alertmanager(node: Node, faults: &mut Faults) -> Option<ReceiverKind> {
    let mut taker = Taker::new(node, "`alertmanager`", faults)?;
    let place = taker.place;
    let url = taker.text("url", faults);
    let resend = taker.duration("resend", faults).unwrap_or(ALERTMANAGER_RESEND_DEFAULT);
    let bearer_token = taker.text("bearer_token", faults);
    taker.finish(&["url", "resend", "bearer_token"], faults);
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(3_600));
    if !(least..=most).contains(&resend) {
        faults.add(place, "`resend` is a duration from 1s to 1h");
    }
    if let Some((place, token)) = &bearer_token
        && !token.bytes().all(|byte| byte.is_ascii_graphic())
    {
        faults.add(*place, "`bearer_token` has a character that a header cannot carry");
    }
    let Some((url_place, url)) = url else {
        faults.add(place, "`url` is missing");
        return None;
    };
    check_url(url_place, &url, faults);
    if url.contains(['?', '#']) {
        faults.add(url_place, "`url` is the address that /api/v2/alerts is put behind, without a query");
    }
    Some(ReceiverKind::Alertmanager(Alertmanager {
        url: Secret::new(url),
        resend,
        bearer_token: bearer_token.map(|(_, token)| Secret::new(token)),
    }))
}
