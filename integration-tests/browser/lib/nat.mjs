// The address translator of somebody's home: one page's media goes through it, and it may give it another outside address at any time.
import dgram from "node:dgram";

const bound = async () => {
  const socket = dgram.createSocket("udp4");
  // What is sent to a port that is gone is lost, as anywhere.
  socket.on("error", () => {});
  await new Promise((done) => socket.bind(0, "127.0.0.1", done));
  return socket;
};

/** `behind(page, nat)` (link.mjs) leads a page through it. */
export class Nat {
  static async open({ node = 8443 } = {}) {
    const nat = new Nat();
    nat.node = node;
    nat.inside = await bound();
    nat.port = nat.inside.address().port;
    nat.inside.on("message", (packet, from) => {
      nat.page = from.port;
      nat.outside.send(packet, nat.node, "127.0.0.1");
    });
    await nat.rebind();
    return nat;
  }

  /** From now on the outside sees another port. Nobody is told, and what was under way to the old one is lost. */
  async rebind() {
    const before = this.outside;
    const outside = await bound();
    outside.on("message", (packet) => { if (this.page) this.inside.send(packet, this.page, "127.0.0.1"); });
    this.outside = outside;
    before?.close();
  }

  close() {
    this.inside.close();
    this.outside.close();
  }
}
