//! The route table: each route declares who may call it, or it does not compile.
//!
//! The list feeds the router, the access tests, the contract test and metric labels.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodFilter, on};

use super::doc::Doc;
use crate::app::App;
use crate::auth::admit;
use crate::workspaces::role::Permission;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Anyone: health, metrics, signing in.
    Public,
    /// A person who signed in, with or without a workspace chosen.
    Person,
    /// A person who runs the installation.
    PlatformAdmin,
    /// A workspace credential whose role has this permission.
    Needs(Permission),
    /// A worker that shows the pool token.
    Pool,
    /// A worker that shows a lease token; the handler checks it against the execution.
    Lease,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path with `{parameters}`.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What it is for.
    pub doc: Arc<Doc>,
}

/// The table under construction.
pub struct Routes {
    app: App,
    router: Router<App>,
    list: Vec<Route>,
}

impl Routes {
    /// An empty table for this application.
    pub fn new(app: &App) -> Self {
        Self {
            app: app.clone(),
            router: Router::new(),
            list: Vec::new(),
        }
    }

    /// Adds a `GET` route.
    pub fn get<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add(Method::GET, path, access, handler, doc)
    }

    /// Adds a `POST` route.
    pub fn post<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add(Method::POST, path, access, handler, doc)
    }

    /// Adds a `PUT` route.
    pub fn put<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add(Method::PUT, path, access, handler, doc)
    }

    /// Adds a `PATCH` route.
    pub fn patch<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add(Method::PATCH, path, access, handler, doc)
    }

    /// Adds a `DELETE` route.
    pub fn delete<H, T>(self, path: &'static str, access: Access, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add(Method::DELETE, path, access, handler, doc)
    }

    /// Joins a feature's routes.
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.list.extend(other.list);
        self
    }

    /// The router and the list it was made from.
    pub fn finish(self) -> (Router<App>, Vec<Route>) {
        (self.router, self.list)
    }

    fn add<H, T>(
        mut self,
        method: Method,
        path: &'static str,
        access: Access,
        handler: H,
        doc: Doc,
    ) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("a standard method");
        let admit = middleware::from_fn_with_state((self.app.clone(), access), admit::admit);
        // route_layer on the method router: other methods of the path stay 405.
        self.router = self
            .router
            .route(path, on(filter, handler).route_layer(admit));
        self.list.push(Route {
            method,
            path,
            access,
            doc: Arc::new(doc),
        });
        self
    }
}
