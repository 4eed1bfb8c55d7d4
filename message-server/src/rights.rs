//! Who may do what: the one place where rights are decided. Handlers name the deed, this file answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ApiError, ApiResult};

/// What a person is trusted with. A person holds a set of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Talks in channels and calls.
    User,
    /// Host of every call it is in.
    Host,
    /// Sees nodes, calls and jobs; no content.
    Ops,
    /// Finds, plays and verifies recordings.
    Officer,
    /// Manages people.
    Admin,
}

impl Role {
    /// All roles, in the order they are shown.
    pub const ALL: [Self; 5] = [Self::User, Self::Host, Self::Ops, Self::Officer, Self::Admin];

    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Host => "host",
            Self::Ops => "ops",
            Self::Officer => "officer",
            Self::Admin => "admin",
        }
    }

    /// Roles as stored: names separated by commas. Unknown names (of a later version) give no right.
    pub fn parse_set(text: &str) -> Vec<Self> {
        Self::ALL.into_iter().filter(|role| text.split(',').any(|name| name == role.name())).collect()
    }

    /// Whether these are enough to see channels and to be in calls.
    pub fn converse(roles: &[Self]) -> bool {
        roles.contains(&Self::User) || roles.contains(&Self::Host)
    }

    /// The stored form.
    pub fn format_set(roles: &[Self]) -> String {
        let names: Vec<&str> = Self::ALL.into_iter().filter(|role| roles.contains(role)).map(Self::name).collect();
        names.join(",")
    }
}

/// Who is asking: a person, or a guest who is confined to one call.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// `u-…` or `g-…`; also the identity in calls.
    pub id: String,
    /// Name that others see.
    pub display_name: String,
    /// Sign-in name; empty for guests.
    pub username: String,
    /// Empty for guests.
    pub roles: Vec<Role>,
    /// The only call a guest may see.
    pub guest_call: Option<String>,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed<'a> {
    /// See channels, people's names; write messages; start calls.
    Converse,
    /// See a call, join it, speak in its chat, raise a hand, react, answer the recording notice.
    TakePart {
        /// The call.
        call: &'a str,
    },
    /// Record, caption, mute, remove, stop a share, end, invite guests.
    HostCall {
        /// The call.
        call: &'a str,
        /// Whether the viewer started it.
        started_it: bool,
    },
    /// Create and change people.
    ManagePeople,
    /// Recordings and transcripts.
    Review,
    /// Nodes, calls, jobs.
    Operate,
}

impl Viewer {
    /// Whether this person holds `role`.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether the deed is allowed.
    pub fn may(&self, deed: Deed<'_>) -> bool {
        let converses = self.guest_call.is_none() && Role::converse(&self.roles);
        match deed {
            Deed::Converse => converses,
            Deed::TakePart { call } => converses || self.guest_call.as_deref() == Some(call),
            Deed::HostCall { call, started_it } => {
                self.may(Deed::TakePart { call }) && self.guest_call.is_none() && (started_it || self.has(Role::Host))
            }
            Deed::ManagePeople => self.has(Role::Admin),
            Deed::Review => self.has(Role::Officer),
            Deed::Operate => self.has(Role::Ops),
        }
    }

    /// The deed, or a refusal that says who could help. What a viewer may not even know of reads as not found.
    pub fn check(&self, deed: Deed<'_>) -> ApiResult<()> {
        if self.may(deed) {
            return Ok(());
        }
        Err(match deed {
            Deed::TakePart { .. } => ApiError::not_found("call"),
            Deed::HostCall { call, .. } if !self.may(Deed::TakePart { call }) => ApiError::not_found("call"),
            Deed::HostCall { .. } => {
                ApiError::forbidden("Only a host of this call can do that. Ask a host, or an administrator for the role host.")
            }
            Deed::Converse if self.guest_call.is_some() => {
                ApiError::forbidden("Guests can only take part in the call they were invited to.")
            }
            Deed::Converse => ApiError::forbidden("This needs the role user. Ask an administrator for it."),
            Deed::ManagePeople => ApiError::forbidden("This needs the role admin. Ask an administrator."),
            Deed::Review => ApiError::forbidden("This needs the role officer. Ask an administrator for it."),
            Deed::Operate => ApiError::forbidden("This needs the role ops. Ask an administrator for it."),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn viewer(roles: &[Role], guest_call: Option<&str>) -> Viewer {
        Viewer {
            id: "x".to_owned(),
            display_name: "X".to_owned(),
            username: String::new(),
            roles: roles.to_vec(),
            guest_call: guest_call.map(str::to_owned),
        }
    }

    /// The whole table: who × deed. A changed right shows here first.
    #[test]
    fn table_of_rights() {
        let own = |started_it| Deed::HostCall { call: "call-1", started_it };
        let deeds =
            [Deed::Converse, Deed::TakePart { call: "call-1" }, own(false), own(true), Deed::ManagePeople, Deed::Review, Deed::Operate];
        let table = [
            (viewer(&[Role::User], None), "yynynnn"),
            (viewer(&[Role::Host], None), "yyyynnn"),
            (viewer(&[Role::Ops], None), "nnnnnny"),
            (viewer(&[Role::Officer], None), "nnnnnyn"),
            (viewer(&[Role::Admin], None), "nnnnynn"),
            (viewer(&Role::ALL, None), "yyyyyyy"),
            (viewer(&[], None), "nnnnnnn"),
            (viewer(&[], Some("call-1")), "nynnnnn"),
            (viewer(&[], Some("call-2")), "nnnnnnn"),
        ];
        for (viewer, expected) in table {
            let got: String = deeds.iter().map(|deed| if viewer.may(*deed) { 'y' } else { 'n' }).collect();
            assert_eq!(got, expected, "{:?} {:?}", viewer.roles, viewer.guest_call);
        }
    }

    #[test]
    fn roles_survive_storage_and_unknown_ones_give_nothing() {
        assert_eq!(Role::parse_set("admin,user,emperor"), [Role::User, Role::Admin]);
        assert_eq!(Role::format_set(&[Role::Admin, Role::User, Role::Admin]), "user,admin");
    }
}
