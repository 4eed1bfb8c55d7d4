//! Who may speak to us, and for which tenant.

use conclave_proto::v1;

use crate::config::{Config, Secret};
use crate::limits::TENANT_LEN_MAX;

/// The tenant of a message server that names none.
pub const DEFAULT_TENANT: &str = "default";

/// The tokens that count.
#[derive(Clone, Debug)]
pub struct Auth {
    shared: Option<Secret>,
    tenants: Vec<(String, Secret)>,
}

/// What a bearer token opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The shared token: every tenant without a token of its own, and the node itself.
    Shared,
    /// One tenant's calls, nothing of the node.
    Tenant(String),
}

impl Auth {
    /// From the settings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { shared: config.signal_token.clone(), tenants: config.tenant_tokens.clone() }
    }

    /// Whether there is any token at all: without one nobody can speak to us.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.shared.is_some() || !self.tenants.is_empty()
    }

    /// The tenant of a hello, if its token is right for it.
    #[must_use]
    pub fn tenant_of(&self, hello: &v1::Hello) -> Option<String> {
        let tenant = named(&hello.tenant);
        if !crate::config::tenant_name(&tenant) || tenant.len() > TENANT_LEN_MAX {
            return None;
        }
        let own = self.tenants.iter().find(|(name, _)| *name == tenant).map(|(_, token)| token);
        let wanted = own.or(self.shared.as_ref())?;
        wanted.matches(hello.token.as_bytes()).then_some(tenant)
    }

    /// What the bearer token of a unary call opens.
    #[must_use]
    pub fn scope_of(&self, metadata: &tonic::metadata::MetadataMap) -> Option<Scope> {
        let given = metadata.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")?.as_bytes();
        // Every token is compared, so that the time tells nothing.
        let mut scope = self.shared.as_ref().filter(|shared| shared.matches(given)).map(|_| Scope::Shared);
        for (tenant, token) in &self.tenants {
            if token.matches(given) {
                scope = Some(Scope::Tenant(tenant.clone()));
            }
        }
        scope
    }

    /// Whether calls of `tenant` may be seen with `scope`.
    #[must_use]
    pub fn may_see(&self, scope: &Scope, tenant: &str) -> bool {
        match scope {
            Scope::Shared => self.tenants.iter().all(|(name, _)| name != tenant),
            Scope::Tenant(own) => own == tenant,
        }
    }
}

/// The tenant a message means.
#[must_use]
pub fn named(tenant: &str) -> String {
    if tenant.is_empty() { DEFAULT_TENANT.to_owned() } else { tenant.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth() -> Auth {
        Auth { shared: Some(Secret::new(b"shared-secret-of-all")), tenants: vec![("acme".to_owned(), Secret::new(b"secret-of-acme-only"))] }
    }

    fn hello(tenant: &str, token: &str) -> v1::Hello {
        v1::Hello { tenant: tenant.to_owned(), token: token.to_owned(), ..v1::Hello::default() }
    }

    #[test]
    fn a_tenant_with_its_own_token_is_closed_to_the_shared_one_and_the_other_way_round() {
        let auth = auth();
        assert_eq!(auth.tenant_of(&hello("", "shared-secret-of-all")).as_deref(), Some(DEFAULT_TENANT));
        assert_eq!(auth.tenant_of(&hello("acme", "secret-of-acme-only")).as_deref(), Some("acme"));
        for (tenant, token) in [
            ("acme", "shared-secret-of-all"),
            ("other", "secret-of-acme-only"),
            ("", ""),
            ("", "shared-secret-of-al"),
            ("a/b", "shared-secret-of-all"),
        ] {
            assert_eq!(auth.tenant_of(&hello(tenant, token)), None, "{tenant} {token}");
        }
        assert!(!auth.may_see(&Scope::Shared, "acme") && auth.may_see(&Scope::Shared, DEFAULT_TENANT));
        let acme = Scope::Tenant("acme".to_owned());
        assert!(auth.may_see(&acme, "acme") && !auth.may_see(&acme, DEFAULT_TENANT));
    }

    #[test]
    fn bearers_are_told_apart() {
        let auth = auth();
        let scope = |text: &str| {
            let mut metadata = tonic::metadata::MetadataMap::new();
            metadata.insert("authorization", text.parse().expect("ascii"));
            auth.scope_of(&metadata)
        };
        assert_eq!(scope("Bearer shared-secret-of-all"), Some(Scope::Shared));
        assert_eq!(scope("Bearer secret-of-acme-only"), Some(Scope::Tenant("acme".to_owned())));
        assert_eq!(scope("Bearer x"), None);
        assert_eq!(scope("shared-secret-of-all"), None);
    }
}
