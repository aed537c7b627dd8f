/**
 * The bytes of a multiaddr that libp2p reads and cannot print: `/ip4/127.0.0.1/tcp/80/http-path/`, and an emoji.
 */
export const unprintable = Uint8Array.from([4, 127, 0, 0, 1, 6, 0, 80, 0xe1, 3, 4, 0xf0, 0x9f, 0x98, 0x80])
