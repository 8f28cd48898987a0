"""An RTSP server on loopback that takes what is announced. Run by the system's Python, which has GStreamer:

    /usr/bin/python3 rtsp_receiver.py PORT FOLDER

takes rtsp://127.0.0.1:PORT/live, H.264 and AAC, writes them to FOLDER/pictures.h264 and FOLDER/sound.aac as they come, and says
"ready".
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main() -> None:
    Gst.init(None)
    port, folder = sys.argv[1:]
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.set_launch(
        "( rtph264depay name=depay0 ! video/x-h264,stream-format=byte-stream "
        f"! filesink location={folder}/pictures.h264 buffer-mode=unbuffered sync=false "
        f"rtpmp4gdepay name=depay1 ! filesink location={folder}/sound.aac buffer-mode=unbuffered sync=false )"
    )
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
