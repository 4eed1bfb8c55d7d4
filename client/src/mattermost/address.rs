//! Where a site is, and by which roots it is believed.

use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Url;
use reqwest::header::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::SiteError;
use super::limits::CA_FILE_MAX;

/// A Mattermost site, and as whom to speak to it. Without `Debug`: the token is a secret.
#[derive(Clone)]
pub struct Address {
    /// `https://chat.example.org`, with a path where the installation has one.
    pub site_url: String,
    /// Token of the bot's (or a person's) session.
    pub token: String,
    /// Certificate authorities in PEM that are believed beside the system's.
    pub ca_file: Option<PathBuf>,
}

impl Address {
    /// The URL of a path below the site's own.
    pub(super) fn url(&self, segments: &[&str]) -> Result<Url, SiteError> {
        let wrong = || SiteError::Configuration(format!("{:?} is no http or https address of a Mattermost site", self.site_url));
        let mut url = Url::parse(self.site_url.trim()).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong());
        }
        url.set_query(None);
        url.set_fragment(None);
        url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(segments);
        Ok(url)
    }

    /// `Authorization`, marked as a secret.
    pub(super) fn authorization(&self) -> Result<HeaderValue, SiteError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.token))
            .map_err(|_| SiteError::Configuration("the token holds characters that no header may have".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The system's roots (where it has none, Mozilla's) and those of `ca_file`.
    pub(super) fn tls(&self) -> Result<Arc<ClientConfig>, SiteError> {
        let wrong = |text: String| SiteError::Configuration(text);
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        if let Some(path) = &self.ca_file {
            let name = path.display();
            let len = std::fs::metadata(path).map_err(|error| wrong(format!("the CA file {name} cannot be read: {error}")))?.len();
            if len > CA_FILE_MAX {
                return Err(wrong(format!("the CA file {name} has {len} bytes; certificates of a site take far less")));
            }
            let pem = std::fs::read(path).map_err(|error| wrong(format!("the CA file {name} cannot be read: {error}")))?;
            let mut added = 0_usize;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| wrong(format!("the CA file {name} is no PEM: {error}")))?;
                roots.add(certificate).map_err(|error| wrong(format!("a certificate of the CA file {name} is not usable: {error}")))?;
                added += 1;
            }
            if added == 0 {
                return Err(wrong(format!("the CA file {name} holds no certificate in PEM")));
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// Where everything is on this machine media is too; from elsewhere loopback cannot be reached. `url`: of the site, or of the media server.
#[must_use]
pub fn local_for(url: &str) -> &'static str {
    let url = Url::parse(url.trim()).ok();
    let here = url.as_ref().and_then(Url::host_str).is_some_and(|host| host == "localhost" || host.starts_with("127."));
    if here { "127.0.0.1" } else { "0.0.0.0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(site_url: &str) -> Address {
        Address { site_url: site_url.to_owned(), token: "t".to_owned(), ca_file: None }
    }

    #[test]
    fn paths_stand_below_the_sites_own() {
        let of = |site: &str| address(site).url(&["api", "v4", "a b"]).map(String::from).map_err(|error| error.to_string());
        assert_eq!(of("https://chat.example.org"), Ok("https://chat.example.org/api/v4/a%20b".to_owned()));
        assert_eq!(of(" http://chat.example.org:8065/sub/ "), Ok("http://chat.example.org:8065/sub/api/v4/a%20b".to_owned()));
        for wrong in ["chat.example.org", "ftp://chat.example.org", "", "https://"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn media_stays_on_this_machine_only_where_its_server_is() {
        for url in ["http://localhost:8065/chat", "ws://127.0.0.1:7880", "https://127.1.2.3"] {
            assert_eq!(local_for(url), "127.0.0.1", "{url}");
        }
        for url in ["https://chat.example.org", "wss://localhost.example.org", "https://10.0.0.1/127.0.0.1", "no address", "https://[::1]/"]
        {
            assert_eq!(local_for(url), "0.0.0.0", "{url}");
        }
    }

    #[test]
    fn a_segment_stays_one() {
        assert_eq!(address("http://h").url(&["a", "../b/c"]).expect("a url").path(), "/a/..%2Fb%2Fc");
    }

    #[test]
    fn a_ca_file_that_is_none_says_what_is_wrong() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ca.pem");
        let of = || Address { ca_file: Some(path.clone()), ..address("https://h") }.tls().map(|_| ()).expect_err("no CA").to_string();
        assert!(of().contains("cannot be read"));
        std::fs::write(&path, "nothing").expect("writes");
        assert!(of().contains("no certificate"));
    }

    #[test]
    fn the_token_is_marked_as_a_secret() {
        let value = address("http://h").authorization().expect("a header");
        assert!(value.is_sensitive() && !format!("{value:?}").contains("Bearer"));
    }
}
