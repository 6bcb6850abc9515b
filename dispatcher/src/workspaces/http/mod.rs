//! The client API of workspaces, in the shapes of the contract for tenants.

mod admin;
mod members;
mod tenants;

use crate::app::App;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
use crate::workspaces::role::Permission;

/// What clients call.
pub(super) fn routes(app: &App) -> Routes {
    of_tenants(app)
        .merge(of_members(app))
        .merge(of_installation(app))
}

fn of_tenants(app: &App) -> Routes {
    use tenants::{CreateBody, DeleteQuery, List, ListQuery, Mine, Tenant, UpdateBody};
    Routes::new(app)
        .get(
            "/api/tenants",
            Access::Person,
            tenants::list,
            Doc::new("The workspaces that one is a member of, with their members")
                .query::<ListQuery>()
                .gives::<List>(200),
        )
        .get(
            "/api/tenants/mine",
            Access::Person,
            tenants::mine,
            Doc::new("The workspaces that one is a member of, with one's role")
                .query::<ListQuery>()
                .gives::<Mine>(200),
        )
        .post(
            "/api/tenants",
            Access::Person,
            tenants::create,
            Doc::new("Make a workspace and become its owner")
                .body::<CreateBody>()
                .gives::<Tenant>(201),
        )
        .post(
            "/api/tenants/create",
            Access::Person,
            tenants::create,
            Doc::new("Make a workspace and become its owner")
                .body::<CreateBody>()
                .gives::<Tenant>(201),
        )
        .get(
            "/api/tenants/{id}",
            Access::Needs(Permission::WorkspaceRead),
            tenants::get,
            Doc::new("The workspace with its members").gives::<Tenant>(200),
        )
        .patch(
            "/api/tenants/{id}",
            Access::Needs(Permission::WorkspaceUpdate),
            tenants::update,
            Doc::new("Rename, archive or reopen the workspace")
                .body::<UpdateBody>()
                .gives::<Tenant>(200),
        )
        .delete(
            "/api/tenants/{id}",
            Access::Needs(Permission::WorkspaceDelete),
            tenants::delete,
            Doc::new("Delete the workspace with everything in it")
                .query::<DeleteQuery>()
                .gives_nothing(204),
        )
}

fn of_members(app: &App) -> Routes {
    use members::{
        AcceptBody, Invitations, InviteBody, InvitedTenant, Members, RemoveQuery, RoleBody,
    };
    use tenants::Tenant;
    Routes::new(app)
        .get(
            "/api/tenants/{id}/members",
            Access::Needs(Permission::MemberRead),
            members::list,
            Doc::new("Members with names and addresses").gives::<Members>(200),
        )
        .post(
            "/api/tenants/{id}/members",
            Access::Needs(Permission::MemberManage),
            members::invite,
            Doc::new("Add a member by id or address, or invite an address")
                .body::<InviteBody>()
                .gives::<InvitedTenant>(200),
        )
        .patch(
            "/api/tenants/{id}/members/{userId}",
            Access::Needs(Permission::MemberManage),
            members::change,
            Doc::new("Give a member another role")
                .uuid("userId")
                .body::<RoleBody>()
                .gives::<Tenant>(200),
        )
        .delete(
            "/api/tenants/{id}/members/{userId}",
            Access::Needs(Permission::MemberManage),
            members::remove,
            Doc::new("End a membership")
                .uuid("userId")
                .query::<RemoveQuery>()
                .gives::<Tenant>(200),
        )
        .get(
            "/api/tenants/{id}/invitations",
            Access::Needs(Permission::MemberManage),
            members::invitations,
            Doc::new("Open invitations, newest first").gives::<Invitations>(200),
        )
        .delete(
            "/api/tenants/{id}/invitations/{invitationId}",
            Access::Needs(Permission::MemberManage),
            members::revoke,
            Doc::new("Take an invitation back").gives_nothing(204),
        )
        .post(
            "/api/invitations/accept",
            Access::Person,
            members::accept,
            Doc::new("Accept an invitation by its token")
                .body::<AcceptBody>()
                .gives::<Tenant>(200),
        )
}

/// What those who run the installation call.
fn of_installation(app: &App) -> Routes {
    use admin::{List, ListQuery, Reason, Shown};
    Routes::new(app)
        .get(
            "/api/admin/tenants",
            Access::PlatformAdmin,
            admin::list,
            Doc::new("All workspaces of the installation")
                .query::<ListQuery>()
                .gives::<List>(200),
        )
        .post(
            "/api/admin/tenants/{id}/suspend",
            Access::PlatformAdmin,
            admin::suspend,
            Doc::new("Suspend a workspace: it can only be read, what runs goes on")
                .body::<Reason>()
                .gives::<Shown>(200),
        )
        .post(
            "/api/admin/tenants/{id}/resume",
            Access::PlatformAdmin,
            admin::resume,
            Doc::new("End a workspace's suspension")
                .body::<Reason>()
                .gives::<Shown>(200),
        )
}
