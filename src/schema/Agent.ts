/**
 * What a node says of itself to others.
 */

/** The version of this package; a spec compares it with package.json. */
export const version = "0.1.0"

/** The agent of identify and of `hello`. */
export const agentVersion = `codio-network/${version}`

/** The protocol version of identify. The Rust crate uses the same text. */
export const protocolVersion = "/codio/1.0.0"
