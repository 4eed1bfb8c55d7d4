//! Where the defaults of Mattermost's rtcd differ from ours: while its clients are served, its own hold, so that a site that sets
//! nothing finds what it had.

use super::{Origin, Texts};

const DEFAULTS: &[(&str, &str)] = &[
    ("api.http.listen_address", ":8045"),
    ("rtc.enable_ipv6", "false"),
    ("node.drain_deadline_s", "none"),
    ("logger.console_json", "false"),
    ("logger.enable_color", "false"),
    ("logger.enable_file", "true"),
];

/// Settings that are taken, checked and then not needed.
pub(super) const WITHOUT_EFFECT: &[&str] = &["rtc.udp_sockets_count", "rtc.nack_buffer_size", "rtc.nack_disable_copy"];

/// Puts its defaults in place of ours, where its clients are served.
pub(super) fn defaults(texts: &mut Texts) {
    let text = |key: &str| texts.get(key).map_or("", |(text, _)| text.as_str());
    // As `Config::serves_mattermost`, before the values are read.
    let on = match text("mattermost.enable") {
        "" => text("signal.token").is_empty() && text("livekit.keys").is_empty(),
        set => super::parse::boolean(set).unwrap_or(false),
    };
    if !on {
        return;
    }
    for (key, default) in DEFAULTS {
        if let Some((text, Origin::Default)) = texts.get_mut(key) {
            *text = (*default).to_owned();
        }
    }
}
