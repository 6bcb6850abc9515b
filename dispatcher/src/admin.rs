//! `clawlink admin`: the operator's tasks on the database, of which a running dispatcher learns
//! there; it need not run.

use anyhow::Context;
use clap::Subcommand;
use clawlink::auth::principal::KeyRole;
use clawlink::config::Settings;
use clawlink::{audit, auth, workspaces};
use sqlx::Connection;

use super::{Installation, say};

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Makes an account and prints a token that gives it a password; for where registration
    /// is closed.
    CreateUser {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        of: Installation,
        /// The person's e-mail address.
        #[arg(long)]
        email: String,
        /// A name that nobody else has.
        #[arg(long)]
        username: String,
    },
    /// Prints a token with which a person sets a new password, once.
    ResetPassword {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        of: Installation,
        /// The person's e-mail address.
        #[arg(long)]
        email: String,
    },
    /// Makes an API key and prints it once.
    CreateKey {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        of: Installation,
        /// The workspace's slug; made if it does not exist.
        #[arg(long, default_value = "default")]
        workspace: String,
        /// A name for lists and audit.
        #[arg(long)]
        name: String,
        /// What the key may do.
        #[arg(long, value_enum, default_value = "developer")]
        role: KeyRole,
    },
    /// Keeps a person out from now on: ends all sign-ins and the streams that they read. What
    /// runs for them goes on, and API keys that they made stay valid unless told otherwise.
    DisableUser {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        of: Installation,
        /// The person's e-mail address.
        email: String,
        /// Also revoke the API keys that they made, in all workspaces.
        #[arg(long)]
        revoke_keys: bool,
    },
    /// Lets a person who was kept out sign in again.
    EnableUser {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        of: Installation,
        /// The person's e-mail address.
        email: String,
    },
}

/// Does it; each task is one transaction.
pub(crate) async fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::CreateUser {
            settings,
            of,
            email,
            username,
        } => {
            let mut db = of.connect(&settings).await?;
            let mut transaction = db.begin().await?;
            let token = auth::reset::create(&mut transaction, &email, &username).await;
            let token = token.map_err(|error| anyhow::anyhow!("make the account: {error}"))?;
            transaction.commit().await?;
            say(&auth::reset::explain(&settings.sign_in, &token));
        }
        Task::ResetPassword {
            settings,
            of,
            email,
        } => {
            let mut db = of.connect(&settings).await?;
            let mut transaction = db.begin().await?;
            let token = auth::reset::issue(&mut transaction, &email).await?;
            let token = token.with_context(|| nobody(&email))?;
            transaction.commit().await?;
            say(&auth::reset::explain(&settings.sign_in, &token));
        }
        Task::CreateKey {
            settings,
            of,
            workspace,
            name,
            role,
        } => {
            let mut db = of.connect(&settings).await?;
            let mut transaction = db.begin().await?;
            let tuning = &settings.tuning;
            let caps = (tuning.running_cap, tuning.pending_cap);
            let workspace =
                workspaces::ensure(&mut transaction, &workspace, caps.0, caps.1).await?;
            let by = audit::Actor::operator();
            let key =
                auth::api_key::create_by(&mut transaction, workspace, &name, role, &by).await?;
            transaction.commit().await?;
            say(key.expose());
        }
        Task::DisableUser {
            settings,
            of,
            email,
            revoke_keys,
        } => {
            let mut db = of.connect(&settings).await?;
            let mut transaction = db.begin().await?;
            let done = auth::disable::disable(&mut transaction, &email, revoke_keys).await?;
            let done = done.with_context(|| nobody(&email))?;
            transaction.commit().await?;
            say(&done.explain(&email));
        }
        Task::EnableUser {
            settings,
            of,
            email,
        } => {
            let mut db = of.connect(&settings).await?;
            let mut transaction = db.begin().await?;
            let done = auth::disable::enable(&mut transaction, &email).await?;
            let was_disabled = done.with_context(|| nobody(&email))?;
            transaction.commit().await?;
            say(&match was_disabled {
                true => format!("{email} may sign in again"),
                false => format!("{email} was not disabled"),
            });
        }
    }
    Ok(())
}

fn nobody(email: &str) -> String {
    format!("nobody has the address {email}")
}
