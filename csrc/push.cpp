#include "push.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "error.h"
#include "file_soundtrack.h"
#include "live_soundtrack.h"

namespace refavs {
namespace {

constexpr size_t kQueuedPictures = 4;
constexpr double kConnect_s = 5.0;
constexpr double kFirstPause_s = 0.25;
constexpr double kLongestPause_s = 8.0;
constexpr double kClosing_s = 0.6;

double clock_s() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

std::string tenths(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", seconds);
  return text;
}

}  // namespace

Push::Push(const PushOptions& options)
    : options_(options), target_(parse_push(options.url)), items_(kQueuedPictures) {
  if (!options_.source.empty()) {
    auto sound = std::make_unique<FileSoundtrack>(options_.source, false);
    notes_ = sound->notes();
    if (sound->present()) sound_ = std::move(sound);
  } else if (options_.record) {
    sound_ = std::make_unique<LiveSoundtrack>(options_.record);
  }
  // What cannot be encoded is told at once.
  const PictureEncoder encoder(target_.shown, options_, Encoding::kLive, false);
  notes_.insert(notes_.end(), encoder.notes().begin(), encoder.notes().end());
  thread_ = std::thread(&Push::run, this);
}

Push::~Push() { close(); }

bool Push::write(const uint8_t* rgb, int64_t stride, double pts_s) {
  if (!(pts_s >= 0.0 && pts_s <= 1e9) || pts_s <= last_pts_s_)
    throw SinkError(target_.shown + ": times must rise from 0, but " + std::to_string(pts_s) +
                    " s comes after " + std::to_string(last_pts_s_) + " s");
  last_pts_s_ = pts_s;
  bool taken = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    now_s_ = pts_s;
    taken = connected_;
  }
  if (taken) {
    Item item{padded(options_, rgb, stride), pts_s};
    taken = items_.push(item, std::chrono::milliseconds(0)) == RingStatus::kDone;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (!taken) ++counters_.dropped;
  return taken;
}

void Push::close() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    deadline_.close_within(connected_ ? kClosing_s : 0.0);
    woken_.notify_all();
  }
  items_.finish();
  std::lock_guard<std::mutex> lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

PushCounters Push::counters() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return counters_;
}

void Push::run() {
  double wait_s = kFirstPause_s;
  do {
    double began_s = clock_s();
    try {
      deadline_.within(kConnect_s);
      PushConnection connection(target_, options_, sound_.get(), &deadline_);
      connected();
      began_s = clock_s();
      feed(&connection);
      return;
    } catch (const std::exception& error) {
      lost(error.what());
    }
    // One that breaks off again and again is not asked ever faster.
    if (clock_s() - began_s >= kLongestPause_s) wait_s = kFirstPause_s;
    if (!pause(wait_s)) return;
    wait_s = std::min(2.0 * wait_s, kLongestPause_s);
  } while (true);
}

void Push::connected() {
  std::lock_guard<std::mutex> lock(mutex_);
  drop_queued();  // one that was taken just as the last connection was lost
  connected_ = true;
  if (was_connected_) ++counters_.reconnects;
  was_connected_ = true;
  if (std::exchange(said_lost_, false))
    notices_.add(now_s_,
                 "back: push to " + target_.shown + ", after " + tenths(clock_s() - lost_at_s_));
}

// Until there is nothing more to send. Throws SinkError where the receiver is lost.
void Push::feed(PushConnection* connection) {
  Item item;
  for (;;) {
    const RingStatus status = items_.pop(&item, std::chrono::seconds(1));
    if (status == RingStatus::kEnded) return;
    if (status != RingStatus::kDone) continue;
    connection->send(item.picture, item.pts_s);
    std::lock_guard<std::mutex> lock(mutex_);
    ++counters_.sent;
  }
}

// With mutex_ held.
void Push::drop_queued() {
  Item item;
  while (items_.pop(&item, std::chrono::milliseconds(0)) == RingStatus::kDone) ++counters_.dropped;
}

void Push::lost(const std::string& reason) {
  std::lock_guard<std::mutex> lock(mutex_);
  const bool was_there = std::exchange(connected_, false);
  if (was_there) ++counters_.dropped;  // the one that was being sent
  drop_queued();
  if (closed_ || std::exchange(said_lost_, true)) return;
  lost_at_s_ = clock_s();
  notices_.add(now_s_, (was_there ? "lost: push to " : "not reached: push to ") + target_.shown +
                           ": " + reason + "; trying again");
}

// False: it is closed.
bool Push::pause(double seconds) {
  std::unique_lock<std::mutex> lock(mutex_);
  return !woken_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return closed_; });
}

}  // namespace refavs
