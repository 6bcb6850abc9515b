// An OpenID Connect provider for tests: anybody may sign in as anybody.
//
// Run with the redirect URI as the only argument; prints its issuer. Accounts are addresses;
// one that begins with "unverified" is not verified. Ends when its standard input closes.
import http from "node:http";
import Provider from "oidc-provider";

const [redirectUri] = process.argv.slice(2);
const server = http.createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "clawlink",
        client_secret: "secret-of-tests",
        redirect_uris: [redirectUri],
      },
    ],
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
    pkce: { required: () => true },
    cookies: { keys: ["tests"] },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({
        sub: `id of ${id}`,
        email: id,
        email_verified: !id.startsWith("unverified"),
        name: "A Person",
      }),
    }),
    // Everybody agrees to everything.
    loadExistingGrant: async (ctx) => {
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client.clientId,
        accountId: ctx.oidc.session.accountId,
      });
      grant.addOIDCScope("openid email profile");
      await grant.save();
      return grant;
    },
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
