//! What settings have to be together.

use super::{Config, ConfigError, FIELDS, Origin, Texts};

/// Longest life of TURN credentials: a week.
const TURN_MINUTES_MAX: i64 = 10_080;

/// Checks what one value alone does not tell.
///
/// # Errors
/// The setting to change.
pub(super) fn together(config: &Config, texts: &Texts) -> Result<(), ConfigError> {
    let wrong = |key: &'static str, reason: &str| {
        let env = FIELDS.iter().find(|field| field.key == key).map_or("", |field| field.env);
        let origin = texts.get(key).map_or(Origin::Default, |(_, origin)| origin.clone());
        Err(ConfigError::Field { key, env, origin, reason: reason.to_owned() })
    };
    let secret = "is not set; give the same secret here and to the other side, for example from `openssl rand -hex 32`";
    // Message servers of our own have a token; a node for Mattermost or for LiveKit's clients alone needs none.
    if !config.serves_mattermost() && config.livekit_keys.is_empty() {
        if config.signal_token.is_none() {
            return wrong("signal.token", secret);
        }
        if config.tap_secret.is_none() {
            return wrong("tap.secret", secret);
        }
    }
    if config.http_tls && config.http_tls_cert_file.is_empty() {
        return wrong("api.http.tls.cert_file", "is not set, though api.http.tls.enable is; name the PEM file of the certificate");
    }
    if config.http_tls && config.http_tls_cert_key.is_empty() {
        return wrong("api.http.tls.cert_key", "is not set, though api.http.tls.enable is; name the PEM file of the key");
    }
    if config.enable_admin && config.admin_secret_key.is_none() {
        return wrong("api.security.admin_secret_key", "is not set, though api.security.enable_admin is; set it, or turn the admin off");
    }
    if config.turn_secret.is_some() && !(1..TURN_MINUTES_MAX).contains(&config.turn_minutes) {
        return wrong("rtc.turn.credentials_expiration_minutes", "is not a number of minutes from 1 to 10079");
    }
    if !config.log_console && !config.log_file {
        return wrong("logger.enable_console", "is off and logger.enable_file too; turn one of them on");
    }
    if config.offloader_url.is_some() && (config.offloader_token.is_none() || config.livekit_keys.is_empty() || config.tap_secret.is_none())
    {
        return wrong("offloader.url", "is set for LiveKit's egress, which needs offloader.token, tap.secret and livekit.keys too");
    }
    if !config.webhook_urls.is_empty() {
        if config.webhook_api_key.is_empty() {
            return wrong("webhook.api_key", "is not set, though webhook.urls is; name the key of livekit.keys that signs webhooks");
        }
        if !config.livekit_keys.iter().any(|(key, _)| *key == config.webhook_api_key) {
            return wrong("webhook.api_key", "is none of livekit.keys; name one of them, its secret signs webhooks");
        }
    }
    if config.log_file && config.log_file_location.is_empty() {
        return wrong("logger.file_location", "is not set, though logger.enable_file is; name the file");
    }
    Ok(())
}
