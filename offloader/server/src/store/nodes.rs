//! Offloaders that share this database: who was heard of, and when.

use sqlx::Row;

use super::{Store, StoreError};

/// An offloader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name in leases.
    pub name: String,
    /// Its keys and its archive.
    pub site: String,
    /// For how long nothing was heard of it, by the store's clock.
    pub silent_ms: i64,
}

/// The node in a lease's owner: `node`, or `node/worker` for a worker that asked for work by itself.
pub fn node_of(owner: &str) -> &str {
    owner.split_once('/').map_or(owner, |(node, _)| node)
}

impl Store {
    /// This node lives.
    pub async fn note_node(&self, name: &str, site: &str) -> Result<(), StoreError> {
        let now_ms = self.now_ms().await?;
        let sql = "INSERT INTO nodes (name, site, seen_ms) VALUES ($1, $2, $3) \
                   ON CONFLICT (name) DO UPDATE SET site = excluded.site, seen_ms = excluded.seen_ms";
        sqlx::query(sql).bind(name).bind(site).bind(now_ms).execute(&self.write).await?;
        Ok(())
    }

    /// This node takes nothing more; what it had is for the others.
    pub async fn forget_node(&self, name: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM nodes WHERE name = $1").bind(name).execute(&self.write).await?;
        Ok(())
    }

    /// All nodes ever heard of and not forgotten, by name.
    pub async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        let now_ms = self.now_ms().await?;
        let rows = sqlx::query("SELECT name, site, seen_ms FROM nodes ORDER BY name").fetch_all(&self.read).await?;
        rows.iter()
            .map(|row| {
                let silent_ms = (now_ms - row.try_get::<i64, _>("seen_ms")?).max(0);
                Ok(Node { name: row.try_get("name")?, site: row.try_get("site")?, silent_ms })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::node_of;

    #[test]
    fn owner_names_its_node() {
        assert_eq!(node_of("offloader-1"), "offloader-1");
        assert_eq!(node_of("offloader-1/worker/7"), "offloader-1");
        assert_eq!(node_of(""), "");
    }
}
