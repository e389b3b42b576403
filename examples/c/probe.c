/* Probes a FastCGI server: one line, and Nagios' exit codes.
 *
 *   probe ADDRESS [TIMEOUT]
 */
#include <fcgiguard.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_probe *probe = fcgiguard_probe_new();
    fcgiguard_report *report = NULL;
    int status = 3;

    if (argc < 2) {
        fprintf(stderr, "usage: probe ADDRESS [TIMEOUT]\n");
    } else if ((argc > 2 && fcgiguard_probe_set(probe, "timeout", argv[2], error) < 0) ||
               fcgiguard_probe_run(probe, argv[1], &report, error) < 0) {
        fprintf(stderr, "probe: %s\n", fcgiguard_error_message(error));
    } else {
        puts(fcgiguard_report_text(report, "line"));
        status = fcgiguard_report_exit_code(report);
    }
    fcgiguard_report_free(report);
    fcgiguard_probe_free(probe);
    fcgiguard_error_free(error);
    return status;
}
