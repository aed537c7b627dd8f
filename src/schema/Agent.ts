/**
 * What a node tells others about itself.
 */

export const packageName = "codio-network"

/** The version of this package. Written here, since a bundled program has no package.json; a spec compares the two. */
export const version = "0.1.0"

/** The agent version of identify and of `hello`. */
export const agentVersion = `${packageName}/${version}`

/** The protocol version of identify. The Rust crate uses the same text. */
export const protocolVersion = "/codio/1.0.0"
