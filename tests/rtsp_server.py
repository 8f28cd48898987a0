"""An RTSP server on loopback whose pictures tell when they were made. Run by the system's Python, which has GStreamer:

    /usr/bin/python3 rtsp_server.py PORT [USER:PASSWORD]

serves rtsp://127.0.0.1:PORT/live, H.264 of 128 x 64 at 25 frames a second and A-law of a tone of 440 Hz, and says "ready".
"""

import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

WIDTH, HEIGHT, BLOCK, RATE = 128, 64, 16, 25
VIDEO = (
    f"appsrc name=clock is-live=true do-timestamp=true format=time "
    f"caps=video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={RATE}/1 "
    "! openh264enc gop-size=10 complexity=low rate-control=off ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1"
)
AUDIO = (
    "audiotestsrc name=tone is-live=true freq=440 samplesperbuffer=160 ! audio/x-raw,rate=8000,channels=1 "
    "! alawenc ! rtppcmapay name=pay1 pt=8 min-ptime=20000000 max-ptime=20000000"
)


def clock_picture() -> bytes:
    """I420: the milliseconds of the wall clock as 32 black or white blocks, the lowest bit first."""
    now_ms = int(time.time() * 1e3)
    rows = b""
    for row in range(HEIGHT // BLOCK):
        bits = [now_ms >> (row * WIDTH // BLOCK + column) & 1 for column in range(WIDTH // BLOCK)]
        rows += b"".join((b"\xeb" if bit else b"\x10") * BLOCK for bit in bits) * BLOCK
    return rows + b"\x80" * (WIDTH * HEIGHT // 2)


def refuse_seeking(pad: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
    """The tone says that it can be sought in, which would be asked of the pictures too."""
    is_seeking = info.get_query().type == Gst.QueryType.SEEKING
    return Gst.PadProbeReturn.DROP if is_seeking else Gst.PadProbeReturn.OK


class Factory(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
    """Each client has a pipeline of its own."""

    def do_create_element(self, url: object) -> Gst.Element:
        media = Gst.parse_launch(f"( {VIDEO} {AUDIO} )")
        tone = media.get_by_name("tone").get_static_pad("src")
        tone.add_probe(Gst.PadProbeType.QUERY_UPSTREAM, refuse_seeking)
        clock = media.get_by_name("clock")

        def push() -> bool:
            flow = clock.emit("push-buffer", Gst.Buffer.new_wrapped(clock_picture()))
            return flow == Gst.FlowReturn.OK or media.current_state <= Gst.State.READY

        GLib.timeout_add(1000 // RATE, push)
        return media


def main() -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=sys.argv[1])
    factory = Factory()
    if len(sys.argv) > 2:
        user, password = sys.argv[2].split(":")
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "user")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        factory.add_role_from_structure(
            Gst.Structure.from_string("user, media.factory.access=true, media.factory.construct=true")[0]
        )
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
