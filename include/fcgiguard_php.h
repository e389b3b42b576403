/* Made from fcgiguard.h for PHP's FFI, which reads no preprocessor lines; do not edit. */
typedef enum {
  FCGIGUARD_STEP_IDLE = 0,
  FCGIGUARD_STEP_EVENTS = 1,
  FCGIGUARD_STEP_WORKER = 2,
  FCGIGUARD_STEP_ENDED = 3,
} fcgiguard_step;
typedef struct fcgiguard_error fcgiguard_error;
typedef struct fcgiguard_client fcgiguard_client;
typedef struct fcgiguard_pool fcgiguard_pool;
typedef int32_t (*fcgiguard_fork_fn)(void *userdata);
typedef struct fcgiguard_event fcgiguard_event;
typedef void (*fcgiguard_event_fn)(fcgiguard_event *event, void *userdata);
typedef struct fcgiguard_worker fcgiguard_worker;
typedef struct fcgiguard_probe fcgiguard_probe;
typedef struct fcgiguard_report fcgiguard_report;
typedef struct fcgiguard_responder fcgiguard_responder;
typedef struct fcgiguard_request fcgiguard_request;
typedef struct {
  const uint8_t *name;
  size_t name_len;
  const uint8_t *value;
  size_t value_len;
} fcgiguard_param;
typedef struct fcgiguard_trace fcgiguard_trace;
fcgiguard_client *fcgiguard_client_new(void);
void fcgiguard_client_free(fcgiguard_client *client);
int32_t fcgiguard_client_set(fcgiguard_client *client,
                             const char *name,
                             const char *value,
                             fcgiguard_error *error);
int32_t fcgiguard_client_connect(fcgiguard_client *client,
                                 const char *address,
                                 fcgiguard_error *error);
int32_t fcgiguard_client_param(fcgiguard_client *client,
                               const char *name,
                               size_t name_len,
                               const char *value,
                               size_t value_len,
                               fcgiguard_error *error);
int32_t fcgiguard_client_begin(fcgiguard_client *client,
                               fcgiguard_error *error);
int64_t fcgiguard_client_write(fcgiguard_client *client,
                               const char *input,
                               size_t len,
                               fcgiguard_error *error);
int64_t fcgiguard_client_write_data(fcgiguard_client *client,
                                    const char *input,
                                    size_t len,
                                    fcgiguard_error *error);
int32_t fcgiguard_client_end(fcgiguard_client *client, fcgiguard_error *error);
int32_t fcgiguard_client_read(fcgiguard_client *client,
                              const uint8_t **input,
                              size_t *len,
                              fcgiguard_error *error);
int32_t fcgiguard_client_head(fcgiguard_client *client,
                              fcgiguard_error *error);
int32_t fcgiguard_client_header_at(fcgiguard_client *client,
                                   size_t index,
                                   const uint8_t **name,
                                   size_t *name_len,
                                   const uint8_t **value,
                                   size_t *value_len,
                                   fcgiguard_error *error);
int64_t fcgiguard_client_app_status(fcgiguard_client *client);
int32_t fcgiguard_client_protocol_status(fcgiguard_client *client);
int32_t fcgiguard_client_is_connected(fcgiguard_client *client);
int32_t fcgiguard_client_abort(fcgiguard_client *client,
                               fcgiguard_error *error);
int32_t fcgiguard_client_close(fcgiguard_client *client,
                               fcgiguard_error *error);
fcgiguard_error *fcgiguard_error_new(void);
void fcgiguard_error_free(fcgiguard_error *error);
int32_t fcgiguard_error_code(const fcgiguard_error *error);
const char *fcgiguard_error_message(const fcgiguard_error *error);
const char *fcgiguard_code_name(int32_t code);
const char *fcgiguard_code_advice(int32_t code);
int32_t fcgiguard_code_at(size_t index);
fcgiguard_pool *fcgiguard_pool_new(void);
void fcgiguard_pool_free(fcgiguard_pool *pool);
int32_t fcgiguard_pool_set(fcgiguard_pool *pool,
                           const char *name,
                           const char *value,
                           fcgiguard_error *error);
int32_t fcgiguard_pool_set_int(fcgiguard_pool *pool, const char *name, int64_t value, fcgiguard_error *error);
const char *fcgiguard_pool_get(fcgiguard_pool *pool,
                               const char *name);
int32_t fcgiguard_pool_set_command(fcgiguard_pool *pool, const char *const *argv, fcgiguard_error *error);
int32_t fcgiguard_pool_set_image(fcgiguard_pool *pool,
                                 const char *const *argv,
                                 fcgiguard_error *error);
int32_t fcgiguard_pool_upgrade(fcgiguard_pool *pool,
                               fcgiguard_error *error);
int32_t fcgiguard_listen(const char *address,
                         uint32_t backlog,
                         fcgiguard_error *error);
int32_t fcgiguard_pool_set_fork(fcgiguard_pool *pool,
                                fcgiguard_fork_fn fork,
                                void *userdata,
                                fcgiguard_error *error);
int32_t fcgiguard_pool_add_listener(fcgiguard_pool *pool, int32_t fd, fcgiguard_error *error);
int32_t fcgiguard_pool_open(fcgiguard_pool *pool, fcgiguard_error *error);
int32_t fcgiguard_pool_listener(fcgiguard_pool *pool, size_t index);
int32_t fcgiguard_pool_step(fcgiguard_pool *pool,
                            int64_t timeout_ms,
                            fcgiguard_error *error);
int32_t fcgiguard_pool_run(fcgiguard_pool *pool,
                           fcgiguard_error *error);
int32_t fcgiguard_pool_exit_code(fcgiguard_pool *pool);
int32_t fcgiguard_pool_signal(fcgiguard_pool *pool, int32_t signo, fcgiguard_error *error);
int32_t fcgiguard_pool_reload(fcgiguard_pool *pool, const char *reason, fcgiguard_error *error);
int32_t fcgiguard_pool_stop(fcgiguard_pool *pool, fcgiguard_error *error);
int32_t fcgiguard_pool_quit(fcgiguard_pool *pool, fcgiguard_error *error);
int32_t fcgiguard_pool_scale(fcgiguard_pool *pool, uint32_t workers, fcgiguard_error *error);
int64_t fcgiguard_pool_next_timer_ms(fcgiguard_pool *pool);
int32_t fcgiguard_pool_poll_fds(fcgiguard_pool *pool,
                                int32_t *fds,
                                int16_t *events,
                                size_t room,
                                fcgiguard_error *error);
int32_t fcgiguard_pool_next_event(fcgiguard_pool *pool, fcgiguard_event **event, fcgiguard_error *error);
int32_t fcgiguard_pool_on_event(fcgiguard_pool *pool,
                                fcgiguard_event_fn told,
                                void *userdata,
                                fcgiguard_error *error);
void fcgiguard_event_free(fcgiguard_event *event);
const char *fcgiguard_event_kind(const fcgiguard_event *event);
const char *fcgiguard_event_text(const fcgiguard_event *event);
const char *fcgiguard_event_line(const fcgiguard_event *event);
const char *fcgiguard_event_pool(const fcgiguard_event *event);
int32_t fcgiguard_event_level(const fcgiguard_event *event);
int32_t fcgiguard_event_pid(const fcgiguard_event *event);
int32_t fcgiguard_event_generation(const fcgiguard_event *event);
int32_t fcgiguard_pool_worker(fcgiguard_pool *pool,
                              fcgiguard_worker **worker,
                              fcgiguard_error *error);
int32_t fcgiguard_event_status(const fcgiguard_event *event);
const char *fcgiguard_pool_status_json(fcgiguard_pool *pool);
fcgiguard_probe *fcgiguard_probe_new(void);
void fcgiguard_probe_free(fcgiguard_probe *probe);
int32_t fcgiguard_probe_set(fcgiguard_probe *probe,
                            const char *name,
                            const char *value,
                            fcgiguard_error *error);
int32_t fcgiguard_probe_run(fcgiguard_probe *probe,
                            const char *address,
                            fcgiguard_report **report,
                            fcgiguard_error *error);
void fcgiguard_report_free(fcgiguard_report *report);
int32_t fcgiguard_report_code(const fcgiguard_report *report);
int32_t fcgiguard_report_exit_code(const fcgiguard_report *report);
const char *fcgiguard_report_text(const fcgiguard_report *report,
                                  const char *field);
int64_t fcgiguard_report_number(const fcgiguard_report *report,
                                const char *field);
fcgiguard_responder *fcgiguard_responder_new(void);
void fcgiguard_responder_free(fcgiguard_responder *responder);
int32_t fcgiguard_responder_set(fcgiguard_responder *responder,
                                const char *name,
                                const char *value,
                                fcgiguard_error *error);
int32_t fcgiguard_responder_open(fcgiguard_responder *responder,
                                 const char *address,
                                 fcgiguard_error *error);
int32_t fcgiguard_responder_attach(fcgiguard_responder *responder,
                                   int32_t fd,
                                   fcgiguard_worker *worker,
                                   fcgiguard_error *error);
int32_t fcgiguard_responder_is_fastcgi(int32_t fd);
int32_t fcgiguard_responder_fd(fcgiguard_responder *responder,
                               fcgiguard_error *error);
int32_t fcgiguard_responder_accept(fcgiguard_responder *responder,
                                   fcgiguard_request **request,
                                   fcgiguard_error *error);
int32_t fcgiguard_responder_accept_until_signal(fcgiguard_responder *responder,
                                                fcgiguard_request **request,
                                                fcgiguard_error *error);
int32_t fcgiguard_responder_next(fcgiguard_responder *responder,
                                 fcgiguard_request **request,
                                 fcgiguard_error *error);
int32_t fcgiguard_request_role(fcgiguard_request *request);
size_t fcgiguard_request_param_count(fcgiguard_request *request);
int32_t fcgiguard_request_param(fcgiguard_request *request,
                                const char *name,
                                const uint8_t **value,
                                size_t *len,
                                fcgiguard_error *error);
int32_t fcgiguard_request_param_at(fcgiguard_request *request,
                                   size_t index,
                                   const uint8_t **name,
                                   size_t *name_len,
                                   const uint8_t **value,
                                   size_t *value_len,
                                   fcgiguard_error *error);
int64_t fcgiguard_request_params(fcgiguard_request *request,
                                 fcgiguard_param *into,
                                 size_t room,
                                 fcgiguard_error *error);
int64_t fcgiguard_request_read(fcgiguard_request *request, uint8_t *into, size_t len, fcgiguard_error *error);
int64_t fcgiguard_request_read_data(fcgiguard_request *request,
                                    uint8_t *into,
                                    size_t len,
                                    fcgiguard_error *error);
int64_t fcgiguard_request_write(fcgiguard_request *request,
                                const char *input,
                                size_t len,
                                fcgiguard_error *error);
int64_t fcgiguard_request_write_error(fcgiguard_request *request,
                                      const char *input,
                                      size_t len,
                                      fcgiguard_error *error);
int32_t fcgiguard_request_send_file(fcgiguard_request *request,
                                    int32_t fd,
                                    int64_t offset,
                                    int64_t len,
                                    fcgiguard_error *error);
int32_t fcgiguard_request_flush(fcgiguard_request *request, fcgiguard_error *error);
int32_t fcgiguard_request_set_app_status(fcgiguard_request *request, uint32_t status, fcgiguard_error *error);
int32_t fcgiguard_request_is_aborted(fcgiguard_request *request, fcgiguard_error *error);
int32_t fcgiguard_request_detach(fcgiguard_request *request,
                                 fcgiguard_error *error);
void fcgiguard_responder_leave_all(void);
int32_t fcgiguard_request_finish(fcgiguard_request *request,
                                 fcgiguard_error *error);
void fcgiguard_request_free(fcgiguard_request *request);
const char *fcgiguard_version(void);
int32_t fcgiguard_address_check(const char *address,
                                fcgiguard_error *error);
const char *fcgiguard_option_name(size_t index);
const char *fcgiguard_option_default(const char *name);
const char *fcgiguard_option_text(const char *name);
const char *fcgiguard_option_kind(const char *name);
int32_t fcgiguard_option_exec_only(const char *name);
fcgiguard_trace *fcgiguard_trace_new(const char *side);
void fcgiguard_trace_free(fcgiguard_trace *trace);
int32_t fcgiguard_trace_feed(fcgiguard_trace *trace,
                             const char *input,
                             size_t len,
                             fcgiguard_error *error);
int32_t fcgiguard_trace_finish(fcgiguard_trace *trace, fcgiguard_error *error);
const char *fcgiguard_trace_events(fcgiguard_trace *trace);
const char *fcgiguard_trace_output(fcgiguard_trace *trace);
const char *fcgiguard_trace_error(fcgiguard_trace *trace);
int32_t fcgiguard_worker_from_environment(fcgiguard_worker **worker, fcgiguard_error *error);
void fcgiguard_worker_free(fcgiguard_worker *worker);
int32_t fcgiguard_worker_ready(fcgiguard_worker *worker, fcgiguard_error *error);
int32_t fcgiguard_worker_wait(fcgiguard_worker *worker,
                              int32_t listen_fd,
                              int64_t timeout_ms,
                              fcgiguard_error *error);
int32_t fcgiguard_worker_pre_dispatch(fcgiguard_worker *worker, fcgiguard_error *error);
int32_t fcgiguard_worker_post_dispatch(fcgiguard_worker *worker, fcgiguard_error *error);
int32_t fcgiguard_worker_is_leaving(fcgiguard_worker *worker);
int32_t fcgiguard_worker_extend_deadline(fcgiguard_worker *worker, int64_t ms, fcgiguard_error *error);
int32_t fcgiguard_worker_fatal(fcgiguard_worker *worker,
                               const char *why,
                               fcgiguard_error *error);
int32_t fcgiguard_worker_generation(fcgiguard_worker *worker);
int32_t fcgiguard_worker_lifeline_fd(fcgiguard_worker *worker);
