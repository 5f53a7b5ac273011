//! Who may call a route or a method.

use super::Role;

/// What a caller must be to use a route or a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody who reaches the port; the answer holds no data.
    Public,
    /// A viewer, or anybody with `metrics.public: true`.
    Scrape,
    /// Any token; each method then asks for its own role.
    Token,
    /// Any token, in the header or in the first message.
    FirstMessage,
    /// A viewer or an operator.
    Viewer,
    /// An operator.
    Operator,
    /// An agent for itself, or an operator.
    Agent,
    /// A sender of alerts, or an operator; the token may also come as the password of Basic.
    Ingest,
}

impl Access {
    /// Whether this role suffices.
    pub(crate) const fn admits(self, role: Role) -> bool {
        match (self, role) {
            (Self::Public | Self::Token | Self::FirstMessage, _) | (_, Role::Operator) => true,
            (Self::Viewer | Self::Scrape, Role::Viewer)
            | (Self::Agent, Role::Agent)
            | (Self::Ingest, Role::Ingest) => true,
            (Self::Viewer | Self::Scrape, Role::Agent | Role::Ingest)
            | (Self::Operator, Role::Viewer | Role::Agent | Role::Ingest)
            | (Self::Agent, Role::Viewer | Role::Ingest)
            | (Self::Ingest, Role::Viewer | Role::Agent) => false,
        }
    }

    /// The word the contract uses.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Scrape => "viewer, or public with metrics.public",
            Self::Token | Self::FirstMessage => "token",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Agent => "agent",
            Self::Ingest => "ingest",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_operators_operate_and_only_readers_read() {
        let admitted =
            |access: Access| Role::ALL.into_iter().filter(|r| access.admits(*r)).collect::<Vec<_>>();
        assert_eq!(admitted(Access::Operator), [Role::Operator]);
        assert_eq!(admitted(Access::Viewer), [Role::Viewer, Role::Operator]);
        assert_eq!(admitted(Access::Scrape), [Role::Viewer, Role::Operator]);
        assert_eq!(admitted(Access::Agent), [Role::Operator, Role::Agent]);
        assert_eq!(admitted(Access::Ingest), [Role::Operator, Role::Ingest]);
        assert_eq!(admitted(Access::Token), Role::ALL);
    }
}
