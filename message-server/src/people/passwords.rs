//! Password hashing: argon2id, off the async threads, a bounded number at once.

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _, password_hash::phc::PasswordHash};
use tokio::sync::Semaphore;

use crate::{
    error::{ApiError, ApiResult},
    limits,
};

/// Hashes and checks passwords.
#[derive(Debug)]
pub struct Passwords {
    slots: Semaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { slots: Semaphore::new(limits::PASSWORD_HASHES_AT_ONCE) }
    }
}

impl Passwords {
    /// Checks the rules and hashes.
    pub async fn hash(&self, password: &str) -> ApiResult<String> {
        let length = password.chars().count();
        if !limits::PASSWORD_CHARS.contains(&length) {
            return Err(ApiError::bad_request(format!(
                "A password has {} to {} characters. A few words in a row are easy to remember.",
                limits::PASSWORD_CHARS.start(),
                limits::PASSWORD_CHARS.end()
            )));
        }
        let password = password.to_owned();
        self.run(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()))
            .await?
            .map_err(ApiError::internal)
    }

    /// Whether the password fits. Without a hash (no such account) the same work is done, so that the time tells nothing.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> ApiResult<bool> {
        // Longer ones were never accepted: no need to hash a megabyte for a stranger.
        if password.chars().count() > *limits::PASSWORD_CHARS.end() {
            return Ok(false);
        }
        let password = password.to_owned();
        let hash = hash.map(str::to_owned);
        self.run(move || match hash.as_deref().map(PasswordHash::new) {
            Some(Ok(hash)) => Argon2::default().verify_password(password.as_bytes(), &hash).is_ok(),
            Some(Err(_)) | None => {
                let _same_work = Argon2::default().hash_password(password.as_bytes());
                false
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> ApiResult<T> {
        let _slot = self.slots.acquire().await.map_err(ApiError::internal)?;
        tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_opens_only_its_own_hash() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse battery").await.unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert!(passwords.verify("correct horse battery", Some(&hash)).await.unwrap());
        assert!(!passwords.verify("correct horse batterz", Some(&hash)).await.unwrap());
        assert!(!passwords.verify("correct horse battery", None).await.unwrap());
        assert!(passwords.hash("short").await.is_err());
    }
}
