{{/* The worker groups that are enabled, with their defaults, as a dictionary. */}}
{{- define "daskflow.groups" -}}
{{- $groups := dict -}}
{{- range $name, $own := .Values.workers -}}
{{- $group := mergeOverwrite (deepCopy $.Values.workerDefaults) (default dict $own) -}}
{{- if $group.enabled -}}
{{- if and $group.autoscaling.enabled (gt (int $group.autoscaling.minReplicas) (int $group.autoscaling.maxReplicas)) -}}
{{- fail (printf "workers.%s.autoscaling: minReplicas %v is above maxReplicas %v" $name $group.autoscaling.minReplicas $group.autoscaling.maxReplicas) -}}
{{- end -}}
{{- if $group.spot -}}
{{- $_ := set $group "tolerations" (concat $group.tolerations $.Values.spotTolerations) -}}
{{- end -}}
{{- $_ := set $groups $name $group -}}
{{- end -}}
{{- end -}}
{{- $groups | toJson -}}
{{- end -}}

{{/* The pod of the scheduler. */}}
{{- define "daskflow.schedulerPod" -}}
{{- $own := dict "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION" "1.0" -}}
{{- if .Values.operator.enabled -}}
{{- $routes := list "prometheus" "info" "json" "api" -}}
{{- $modules := list "'distributed.http.health'" "'distributed.http.proxy'" "'distributed.http.statics'" -}}
{{- range $routes -}}
{{- $modules = append $modules (printf "'distributed.http.scheduler.%s'" .) -}}
{{- end -}}
{{- $_ := set $own "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES" (printf "[%s]" (join ", " $modules)) -}}
{{- end -}}
{{ include "daskflow.pod" (list . .Values.scheduler) }}
containers:
  - name: scheduler
    {{- include "daskflow.container" (list . dict) | nindent 4 }}
    command: [dask, scheduler]
    args:
      - --protocol
      - {{ ternary "tls" "tcp" .Values.tls.enabled }}
      - --port
      - "8786"
      - --dashboard-address
      - ":8787"
    env:
      {{- include "daskflow.env" (list . $own) | trim | nindent 6 }}
    ports:
      - name: tcp-comm
        containerPort: 8786
        protocol: TCP
      - name: http-dashboard
        containerPort: 8787
        protocol: TCP
    resources:
      {{- include "daskflow.resources" .Values.scheduler.resources | trim | nindent 6 }}
    startupProbe:
      httpGet: {path: /health, port: http-dashboard}
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: 60
    readinessProbe:
      httpGet: {path: /health, port: http-dashboard}
      periodSeconds: 10
      timeoutSeconds: 10
    livenessProbe:
      httpGet: {path: /health, port: http-dashboard}
      periodSeconds: 30
      timeoutSeconds: 30
      failureThreshold: 10
volumes:
  {{- include "daskflow.volumes" . | nindent 2 }}
{{- end -}}

{{/* The pod of a worker: (list root group). A block may hold Python's lock for minutes, so that probes are patient. */}}
{{- define "daskflow.workerPod" -}}
{{- $root := index . 0 -}}
{{- $group := index . 1 -}}
{{ include "daskflow.pod" (list $root $group) }}
{{- with $group.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ int $group.terminationGracePeriodSeconds }}
containers:
  - name: worker
    {{- include "daskflow.container" (list $root $group.image) | nindent 4 }}
    command: [dask, worker]
    args:
      - $(DASK_SCHEDULER_ADDRESS)
      - --name
      - $(DASK_WORKER_NAME)
      - --host
      - $(DASKFLOW_POD_IP)
      - --worker-port
      - "8788"
      - --nanny-port
      - "8789"
      - --dashboard-address
      - ":8790"
      - --nthreads
      - {{ int $group.threads | quote }}
      - --memory-limit
      - {{ $group.memoryFraction | quote }}
      - --local-directory
      - /tmp
      - --death-timeout
      - "300"
      {{- with $group.daskResources }}
      - --resources
      {{- $pairs := list }}
      {{- range $name, $amount := . }}
      {{- $pairs = append $pairs (printf "%s=%v" $name $amount) }}
      {{- end }}
      - {{ join " " $pairs | quote }}
      {{- end }}
    env:
      {{- if not $root.Values.operator.enabled }}
      - name: DASK_WORKER_NAME
        valueFrom:
          fieldRef: {fieldPath: metadata.name}
      {{- end }}
      - name: DASKFLOW_POD_IP
        valueFrom:
          fieldRef: {fieldPath: status.podIP}
      {{- include "daskflow.env" (list $root $group.env) | trim | nindent 6 }}
    ports:
      - name: tcp-worker
        containerPort: 8788
        protocol: TCP
      - name: tcp-nanny
        containerPort: 8789
        protocol: TCP
      - name: http-worker
        containerPort: 8790
        protocol: TCP
    resources:
      {{- include "daskflow.resources" $group.resources | trim | nindent 6 }}
    startupProbe:
      httpGet: {path: /health, port: http-worker}
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: 120
    readinessProbe:
      httpGet: {path: /health, port: http-worker}
      periodSeconds: 30
      timeoutSeconds: 30
      failureThreshold: 10
    livenessProbe:
      httpGet: {path: /health, port: http-worker}
      periodSeconds: 60
      timeoutSeconds: 60
      failureThreshold: 20
volumes:
  {{- include "daskflow.volumes" $root | nindent 2 }}
{{- end -}}

{{/* The service of the scheduler, which is reached inside the cluster only: (list root selector). */}}
{{- define "daskflow.schedulerService" -}}
type: ClusterIP
selector:
  {{- index . 1 | nindent 2 }}
ports:
  - name: tcp-comm
    port: 8786
    targetPort: tcp-comm
    protocol: TCP
  - name: http-dashboard
    port: 8787
    targetPort: http-dashboard
    protocol: TCP
{{- end -}}

{{/* A worker group as the operator describes one: (list root name group). */}}
{{- define "daskflow.operatorWorker" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $group := index . 2 -}}
{{- if and $group.autoscaling.enabled (ne $name $root.Values.operator.defaultGroup) -}}
{{- fail (printf "workers.%s.autoscaling: the operator scales one group only, operator.defaultGroup (%s)" $name $root.Values.operator.defaultGroup) -}}
{{- end -}}
replicas: {{ ternary $group.autoscaling.minReplicas $group.replicas $group.autoscaling.enabled | int }}
metadata:
  labels:
    {{- include "daskflow.podLabels" (list $root "worker" $name) | nindent 4 }}
    {{- with $root.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with include "daskflow.podAnnotations" $root }}
  {{- . | nindent 2 }}
  {{- end }}
spec:
  {{- include "daskflow.workerPod" (list $root $group) | nindent 2 }}
{{- end -}}
